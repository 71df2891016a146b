package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// targetFields are the keys of Target that say where a secret goes. A secret is bound to
// their values: after a change of one of them it does not open.
var targetFields = []string{"workspace_url", "endpoint", "token_url", "client_id"}

// Errors of Seal, Open and Reseal.
var (
	// ErrNoKey: no key, or not the one that sealed the secret.
	ErrNoKey = errors.New("the sealing key is missing")
	// ErrSealed: the secret was sealed with that key, and for another place.
	ErrSealed = errors.New("the sealed secret does not open")
)

// sealingKey is a key of store.keys, ready for use.
type sealingKey struct {
	name  string // its fingerprint
	aead  cipher.AEAD
	print []byte // key of the fingerprints of secrets
}

func newSealingKey(key []byte) (k sealingKey, err error) {
	derive := func(info string) []byte {
		out, derived := hkdf.Key(sha256.New, key, nil, "bridge store: "+info, KeyBytes)
		err = errors.Join(err, derived)
		return out
	}
	k.name, k.print = hex.EncodeToString(derive("name")[:4]), derive("fingerprint")
	block, failed := aes.NewCipher(derive("seal"))
	if err = errors.Join(err, failed); err == nil {
		k.aead, err = cipher.NewGCM(block)
	}
	return k, err
}

func (s *Store) keys() ([]sealingKey, error) {
	if s.o.Keys == nil {
		return nil, nil
	}
	raw, err := s.o.Keys()
	if err != nil {
		return nil, err
	}
	keys := make([]sealingKey, 0, len(raw))
	for i, key := range raw {
		if len(key) != KeyBytes {
			return nil, fmt.Errorf("%w: key %d of store.keys has %d bytes, and a key has %d; make one with: %s", ErrNoKey, i+1, len(key), KeyBytes, MakeKey)
		}
		k, err := newSealingKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %d of store.keys: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// place is what a sealed secret is bound to: each part after its length.
func placeOf(r *Record, storeID, field string) []byte {
	parts := []string{"bridge sealed 1", storeID, r.ID, field}
	for _, name := range targetFields {
		text, ok := r.Target[name].(string)
		if !ok && r.Target[name] != nil {
			value, _ := json.Marshal(r.Target[name]) // of a map that was or will be JSON
			text = string(value)
		}
		parts = append(parts, text)
	}
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint64(out, uint64(len(p)))
		out = append(out, p...)
	}
	return out
}

// Seal seals a secret of r for the place that r names: store id, integration, field,
// workspace_url, endpoint, token_url and client_id. storeID is that of the State that
// decide gets. The fingerprint of the result is keyed with the sealing key: without that
// key nobody can try secrets against it. Two keys give one secret two fingerprints.
func (s *Store) Seal(r *Record, storeID, field, secret string) (Sealed, error) {
	keys, err := s.keys()
	if err != nil {
		return Sealed{}, err
	}
	if len(keys) == 0 {
		return Sealed{}, fmt.Errorf("%w: secrets cannot be stored; make a key with %s, and name the file in store.keys of every member", ErrNoKey, MakeKey)
	}
	return keys[0].seal(r, storeID, field, secret), nil
}

func (k *sealingKey) seal(r *Record, storeID, field, secret string) Sealed {
	nonce := make([]byte, k.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	mac := hmac.New(sha256.New, k.print)
	mac.Write([]byte(secret))
	return Sealed{Key: k.name, Data: k.aead.Seal(nonce, nonce, []byte(secret), placeOf(r, storeID, field)), Fingerprint: hex.EncodeToString(mac.Sum(nil)[:4])}
}

// Open opens a sealed secret of r. The error names the missing key, or states that the
// secret was sealed for another place; it never holds the secret. A record without that
// secret is an error, too.
func (s *Store) Open(r *Record, storeID, field string) (string, error) {
	keys, err := s.keys()
	if err != nil {
		return "", err
	}
	return open(keys, r, storeID, field)
}

func open(keys []sealingKey, r *Record, storeID, field string) (string, error) {
	sealed, ok := r.Secrets[field]
	if !ok {
		return "", fmt.Errorf("integration %s has no %s; set it again", r.Slug, field)
	}
	i := slices.IndexFunc(keys, func(k sealingKey) bool { return k.name == sealed.Key })
	if i < 0 {
		return "", fmt.Errorf("%w: %s of integration %s is sealed with key %.16q; add the file of that key to store.keys, or set %s again", ErrNoKey, field, r.Slug, sealed.Key, field)
	}
	n := keys[i].aead.NonceSize()
	if len(sealed.Data) < n {
		return "", fmt.Errorf("%w: %s of integration %s is damaged; set it again", ErrSealed, field, r.Slug)
	}
	secret, err := keys[i].aead.Open(nil, sealed.Data[:n], sealed.Data[n:], placeOf(r, storeID, field))
	if err != nil {
		return "", fmt.Errorf("%w: %s of integration %s is damaged, or was sealed for another integration or another workspace_url, endpoint, token_url or client_id; set it again", ErrSealed, field, r.Slug)
	}
	return string(secret), nil
}

// Reseal returns the secrets of r, sealed with the first key, and whether that changes any.
// It fails if one of them does not open.
func (s *Store) Reseal(r *Record, storeID string) (secrets map[string]Sealed, changed bool, err error) {
	keys, err := s.keys()
	if err != nil {
		return nil, false, err
	}
	secrets = make(map[string]Sealed, len(r.Secrets))
	for field, sealed := range r.Secrets {
		secret, err := open(keys, r, storeID, field)
		if err != nil {
			return nil, false, err
		}
		if secrets[field] = sealed; sealed.Key != keys[0].name {
			secrets[field], changed = keys[0].seal(r, storeID, field, secret), true
		}
	}
	return secrets, changed, nil
}
