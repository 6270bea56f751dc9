package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"
)

// kfake's pids.log and groups.log are framed JSON entries: 4 bytes length and 4
// bytes CRC-32C of what follows, 2 bytes version, JSON; little endian.

// readLog returns the entries of a log and cuts off a last one that is not
// whole: kfake would append behind it and never read past it again.
func readLog(path string) (entries [][]byte, cut int64, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	pos := 0
	for pos+10 <= len(raw) {
		n := int(binary.LittleEndian.Uint32(raw[pos:]))
		if n < 2 || n > len(raw)-pos-8 {
			break
		}
		body := raw[pos+8 : pos+8+n]
		if crc32.Checksum(body, castagnoli()) != binary.LittleEndian.Uint32(raw[pos+4:]) {
			break
		}
		entries = append(entries, body[2:])
		pos += 8 + n
	}
	if pos < len(raw) {
		if err := os.Truncate(path, int64(pos)); err != nil {
			return nil, 0, err
		}
	}
	return entries, int64(len(raw) - pos), nil
}

func appendLog(path string, entries []any) error {
	if len(entries) == 0 {
		return nil
	}
	var out []byte
	for _, e := range entries {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		body := append([]byte{1, 0}, data...)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(body, castagnoli()))
		out = append(out, body...)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(out); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// producerEntry is an entry of pids.log.
type producerEntry struct {
	Type    string `json:"type"` // init, endtx, timeout
	PID     int64  `json:"pid"`
	Epoch   int16  `json:"epoch"`
	TxID    string `json:"txid,omitempty"`
	Timeout int32  `json:"timeout,omitempty"`
	Commit  *bool  `json:"commit,omitempty"`
}

// producers is the state that pids.log replays to.
type producers struct {
	byID   map[int64]*producerEntry
	byTxID map[string]int64
}

func readProducers(path string) (*producers, int64, error) {
	entries, cut, err := readLog(path)
	if err != nil {
		return nil, 0, err
	}
	ps := &producers{byID: make(map[int64]*producerEntry), byTxID: make(map[string]int64)}
	for _, raw := range entries {
		var e producerEntry
		if err := json.Unmarshal(raw, &e); err != nil {
			continue // kfake skips it too
		}
		if e.Type == "init" {
			ps.byID[e.PID] = &e
			if e.TxID != "" {
				ps.byTxID[e.TxID] = e.PID
			}
		} else if p := ps.byID[e.PID]; p != nil {
			p.Epoch = e.Epoch
		}
	}
	return ps, cut, nil
}

// inDoubt returns the record if its commit was not completed: once it was,
// the producer has another epoch, or its transactional id another producer.
func (ps *producers) inDoubt(rec *txnRecord) *txnRecord {
	if rec == nil || ps.byTxID[rec.TxnID] != rec.ProducerID {
		return nil
	}
	if p := ps.byID[rec.ProducerID]; p == nil || p.Epoch != rec.Epoch {
		return nil
	}
	return rec
}

// fence returns the entries that give every transactional producer a new
// epoch: a producer that survived the broker must not go on with a transaction
// that was ended here. The one whose commit was completed here is told so when
// it asks again; every other one is refused.
func (ps *producers) fence(decided *txnRecord) []any {
	var out []any
	for txid, pid := range ps.byTxID {
		p := ps.byID[pid]
		commit := decided != nil && decided.ProducerID == pid
		epoch := p.Epoch
		if epoch < math.MaxInt16 {
			epoch++
		}
		out = append(out, producerEntry{Type: "init", PID: pid, Epoch: epoch, TxID: txid, Timeout: p.Timeout, Commit: &commit})
	}
	return out
}

// commitEntries are the group positions of a commit that is completed here.
func commitEntries(rec *txnRecord, now time.Time) []any {
	if rec == nil {
		return nil
	}
	type entry struct {
		Type       string  `json:"type"`
		Group      string  `json:"g"`
		Topic      string  `json:"t,omitempty"`
		Partition  int32   `json:"p,omitempty"`
		Offset     int64   `json:"o,omitempty"`
		Epoch      int32   `json:"e,omitempty"`
		Metadata   *string `json:"m,omitempty"`
		LastCommit int64   `json:"lc"`
	}
	var out []any
	for _, o := range rec.Offsets {
		out = append(out, entry{"commit", o.Group, o.Topic, o.Partition, o.Offset, o.LeaderEpoch, o.Metadata, now.UnixMilli()})
	}
	return out
}

// writeWindows writes kfake's seq_windows.json, which it only writes when it
// stops, so that a producer that survived and sends a batch again does not
// write it twice.
func writeWindows(dataDir string, parts []*partition) error {
	type sentEntry struct {
		FirstSeq int32 `json:"first_seq"`
		NextSeq  int32 `json:"next_seq"`
		Offset   int64 `json:"offset"`
	}
	type windowEntry struct {
		PID       int64                 `json:"pid"`
		Topic     string                `json:"topic"`
		Partition int32                 `json:"partition"`
		Entries   [windowSize]sentEntry `json:"entries"`
		Count     int                   `json:"count"`
		At        int                   `json:"at"`
		Epoch     int16                 `json:"epoch"`
		Seen      bool                  `json:"seen"`
		NextSeq   int32                 `json:"next_seq"`
	}
	var f struct {
		Version int           `json:"version"`
		Windows []windowEntry `json:"windows"`
	}
	f.Version = 1
	for _, p := range parts {
		for pid, w := range p.windows {
			e := windowEntry{
				PID: pid, Topic: p.id.topic, Partition: p.id.partition, Count: len(w.last), At: len(w.last) % windowSize,
				Epoch: w.epoch, Seen: true, NextSeq: w.last[len(w.last)-1].nextSeq,
			}
			for i, s := range w.last {
				e.Entries[i] = sentEntry{s.firstSeq, s.nextSeq, s.offset}
			}
			f.Windows = append(f.Windows, e)
		}
	}
	if err := writeJSON(filepath.Join(dataDir, "seq_windows.json"), f); err != nil {
		return fmt.Errorf("write the producers' sequence numbers: %w", err)
	}
	return nil
}
