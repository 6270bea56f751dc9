// Package privacy makes keyed tokens in place of personal data, and seals what must be kept but not read.
package privacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"sync"

	"github.com/millrace-io/millrace/pkg/config"
)

// Config is the privacy section.
type Config struct {
	Key config.Secret `yaml:"key" doc:"key for tokens and sealing: 64 hexadecimal digits, made by 'admin keys init'"`
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	if c.Key == "" {
		return nil
	}
	if b, err := hex.DecodeString(c.Key.Reveal()); err != nil || len(b) != 32 {
		return errors.New("key: must be 64 hexadecimal digits; make one with 'admin keys init FILE' and set privacy.key_file")
	}
	return nil
}

// InitKeyFile writes a new random key unless the file exists; it tells whether it wrote one. The file can be read by
// everybody who can read the directory only when group and others are let in there: mode is the file's.
func InitKeyFile(path string, mode os.FileMode) (bool, error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("make the directory of the key file: %w", err)
	}
	var key [32]byte
	rand.Read(key[:]) // never fails, by its contract
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-")
	if err != nil {
		return false, fmt.Errorf("write the key file: %w", err)
	}
	defer os.Remove(tmp.Name()) // its other name stays
	_, err = fmt.Fprintln(tmp, hex.EncodeToString(key[:]))
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return false, fmt.Errorf("write the key file: %w", err)
	}
	if err := os.Link(tmp.Name(), path); err != nil { // link does not replace: the first of two racing writers wins
		if errors.Is(err, os.ErrExist) {
			return false, nil
		}
		return false, fmt.Errorf("write the key file: %w", err)
	}
	return true, nil
}

// Keys are the keys derived from the master key. They are safe for concurrent use.
type Keys struct {
	id       string
	token    []byte
	sealing  []byte
	hashers  sync.Pool
	dataKey  cipher.AEAD
	wrapped  []byte
	sealOnce sync.Once
	sealErr  error
}

// NewKeys derives the keys.
func NewKeys(cfg Config) (*Keys, error) {
	if cfg.Key == "" {
		return nil, errors.New("privacy.key is not set: make one with 'admin keys init FILE' and set privacy.key_file")
	}
	master, err := hex.DecodeString(cfg.Key.Reveal())
	if err != nil || len(master) != 32 {
		return nil, errors.New("privacy.key must be 64 hexadecimal digits")
	}
	token, err := hkdf.Key(sha256.New, master, nil, "millrace token", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the token key: %w", err)
	}
	sealing, err := hkdf.Key(sha256.New, master, nil, "millrace seal", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the sealing key: %w", err)
	}
	id := sha256.Sum256(token)
	k := &Keys{id: hex.EncodeToString(id[:2]), token: token, sealing: sealing}
	k.hashers.New = func() any { return hmac.New(sha256.New, k.token) }
	return k, nil
}

// ID names the key that tokens are made with; it is part of each token.
func (k *Keys) ID() string { return k.id }

var tokenAlphabet = base32.StdEncoding.WithPadding(base32.NoPadding)

// AppendToken appends the token of a value: "tok_<key id>_<26 letters>". The same value gives the same token as
// long as the key is the same, in every table and service, so tokens join.
func (k *Keys) AppendToken(dst, value []byte) []byte {
	h := k.hashers.Get().(hash.Hash)
	defer k.hashers.Put(h)
	h.Reset()
	h.Write(value)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	dst = append(append(append(dst, "tok_"...), k.id...), '_')
	return tokenAlphabet.AppendEncode(dst, sum[:16])
}

// Token is AppendToken for a string. The empty string stays empty: it tells nothing. What looks like a token is a value
// like any other, for whoever writes values could write the look of a token around anything: do not call it twice.
func (k *Keys) Token(value string) string {
	if value == "" {
		return ""
	}
	return string(k.AppendToken(nil, []byte(value)))
}

// Sealed is a value that only the holder of the master key can read: AES-256-GCM under a data key of this process,
// which is itself sealed by the master key and travels along.
type Sealed struct {
	KeyID      string // of the master key
	WrappedKey []byte // nonce and sealed data key
	Body       []byte // nonce and sealed value
}

// Seal seals value; context (such as the record's id) must be given again to open it.
func (k *Keys) Seal(value []byte, context string) (Sealed, error) {
	k.sealOnce.Do(k.makeDataKey)
	if k.sealErr != nil {
		return Sealed{}, k.sealErr
	}
	return Sealed{KeyID: k.id, WrappedKey: k.wrapped, Body: seal(k.dataKey, value, context)}, nil
}

// Open opens what any process with the same master key sealed.
func (k *Keys) Open(s Sealed, context string) ([]byte, error) {
	if s.KeyID != k.id {
		return nil, fmt.Errorf("sealed with key %s, this is key %s", s.KeyID, k.id)
	}
	master, err := aead(k.sealing)
	if err != nil {
		return nil, err
	}
	dataKey, err := open(master, s.WrappedKey, "data key")
	if err != nil {
		return nil, err
	}
	data, err := aead(dataKey)
	if err != nil {
		return nil, err
	}
	return open(data, s.Body, context)
}

func (k *Keys) makeDataKey() {
	var key [32]byte
	rand.Read(key[:]) // never fails, by its contract
	master, err := aead(k.sealing)
	if err != nil {
		k.sealErr = err
		return
	}
	k.wrapped = seal(master, key[:], "data key")
	k.dataKey, k.sealErr = aead(key[:])
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return a, nil
}

func seal(a cipher.AEAD, value []byte, context string) []byte {
	return a.Seal(nil, nil, value, []byte(context))
}

func open(a cipher.AEAD, sealed []byte, context string) ([]byte, error) {
	value, err := a.Open(nil, nil, sealed, []byte(context))
	if err != nil {
		return nil, errors.New("cannot open a sealed value: another key or context, or it was changed")
	}
	return value, nil
}
