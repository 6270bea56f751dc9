package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const txnFileName = "TRANSACTION"

// txnRecord is the decision to commit a transaction, written before kfake
// carries it out. kfake handles one request at a time, so at most one commit is
// ever half done and the file holds only the last one.
type txnRecord struct {
	ProducerID int64           `json:"producer_id"`
	Epoch      int16           `json:"epoch"`
	TxnID      string          `json:"txn_id"`
	Offsets    []pendingOffset `json:"offsets,omitempty"`
}

// pendingOffset is a group's position to be committed with the transaction.
type pendingOffset struct {
	Group       string  `json:"group"`
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Offset      int64   `json:"offset"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Metadata    *string `json:"metadata,omitempty"`
}

// producerEpoch names one transaction: from EndTxn version 5 on, the epoch of a
// producer changes with every transaction.
type producerEpoch struct {
	id    int64
	epoch int16
}

type offsetKey struct {
	group, topic string
	partition    int32
}

// pendingOffsets collects the TxnOffsetCommit requests of open transactions.
type pendingOffsets map[producerEpoch]map[offsetKey]pendingOffset

func (g *guard) txnOffsetCommit(kreq kmsg.Request) error {
	req := kreq.(*kmsg.TxnOffsetCommitRequest)
	k := producerEpoch{req.ProducerID, req.ProducerEpoch}
	for old := range g.pending {
		if old.id == k.id && old.epoch != k.epoch {
			delete(g.pending, old) // aborted by a timeout or a successor
		}
	}
	m := g.pending[k]
	if m == nil {
		m = make(map[offsetKey]pendingOffset)
		g.pending[k] = m
	}
	for _, t := range req.Topics {
		name := t.Topic
		if name == "" {
			if info := g.cluster.TopicIDInfo(t.TopicID); info != nil {
				name = info.Topic
			}
		}
		for _, p := range t.Partitions {
			m[offsetKey{req.Group, name, p.Partition}] = pendingOffset{
				Group: req.Group, Topic: name, Partition: p.Partition,
				Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata,
			}
		}
	}
	return nil
}

// endTxn records a commit before kfake carries it out. If the record cannot be
// written the client's connection is closed: the transaction stays undecided
// and the client asks again. Before version 5 an epoch does not name one
// transaction, so nothing is recorded and a commit cut short is aborted.
func (g *guard) endTxn(kreq kmsg.Request) error {
	req := kreq.(*kmsg.EndTxnRequest)
	k := producerEpoch{req.ProducerID, req.ProducerEpoch}
	offsets := g.pending[k]
	if !req.Commit || req.Version < 5 {
		delete(g.pending, k)
		return nil
	}
	rec := txnRecord{ProducerID: k.id, Epoch: k.epoch, TxnID: req.TransactionalID}
	for _, o := range offsets {
		rec.Offsets = append(rec.Offsets, o)
	}
	if err := g.store.txn.write(rec); err != nil {
		return fmt.Errorf("record the commit of a transaction: %w", err)
	}
	delete(g.pending, k)
	return nil
}

// txnFile holds one txnRecord: 4 bytes length, 4 bytes CRC-32C, JSON. It is not
// fsynced: it is for the death of the process, after which the page cache is
// still there.
type txnFile struct {
	f     *os.File
	found *txnRecord
}

const txnHeaderSize = 8

func openTxnFile(path string) (*txnFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the transaction record: %w", err)
	}
	t := &txnFile{f: f}
	if t.found, err = t.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the transaction record: %w", err), f.Close())
	}
	return t, nil
}

// read returns the record, or nil if there is none or it was cut short: then
// kfake had not been asked to commit yet.
func (t *txnFile) read() (*txnRecord, error) {
	b, err := os.ReadFile(t.f.Name())
	if err != nil || len(b) < txnHeaderSize {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n == 0 || n > len(b)-txnHeaderSize {
		return nil, nil
	}
	data := b[txnHeaderSize : txnHeaderSize+n]
	if crc32.Checksum(data, castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, nil
	}
	var rec txnRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, nil
	}
	return &rec, nil
}

// last is the record found when the file was opened.
func (t *txnFile) last() *txnRecord { return t.found }

func (t *txnFile) write(rec txnRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	b := make([]byte, txnHeaderSize, txnHeaderSize+len(data))
	binary.LittleEndian.PutUint32(b, uint32(len(data)))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(data, castagnoli()))
	_, err = t.f.WriteAt(append(b, data...), 0)
	return err
}

// clear forgets the record: nothing is half done.
func (t *txnFile) clear() error {
	if err := t.f.Truncate(0); err != nil {
		return fmt.Errorf("clear the transaction record: %w", err)
	}
	return t.f.Sync()
}

func (t *txnFile) close() error { return t.f.Close() }

// castagnoli returns the CRC-32C table, which the runtime builds once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
