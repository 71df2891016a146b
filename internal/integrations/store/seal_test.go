package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/integrations/store"
)

const secret = "dose-of-entropy-4711"

// sealer returns a store with sealing keys, made of one byte each.
func sealer(keys ...string) *store.Store {
	return store.New(store.Options{Topic: "t", Keys: func() (all [][]byte, _ error) {
		for _, k := range keys {
			all = append(all, bytes.Repeat([]byte(k), 32/len(k)))
		}
		return all, nil
	}})
}

// sealed returns a record with a secret, sealed with a key.
func sealed(t testing.TB, s *store.Store) *store.Record {
	t.Helper()
	r := record("orders")
	r.Target["endpoint"], r.Target["token_url"] = "e", "https://t"
	one, err := s.Seal(r, "store_1", "client_secret", secret)
	must(t, err)
	r.Secrets = map[string]store.Sealed{"client_secret": one}
	return r
}

func TestSealAndOpen(t *testing.T) {
	s := sealer("a")
	r := sealed(t, s)
	if got, err := s.Open(r, "store_1", "client_secret"); err != nil || got != secret {
		t.Fatalf("got %q, %v, want the secret", got, err)
	}
	text, err := json.Marshal(r)
	must(t, err)
	if bytes.Contains(text, []byte(secret)) {
		t.Error("the record holds the secret")
	}
	again := sealed(t, s).Secrets["client_secret"]
	first := r.Secrets["client_secret"]
	if bytes.Equal(again.Data, first.Data) {
		t.Error("one secret has the same ciphertext twice: the nonce repeats")
	}
	if len(first.Fingerprint) != 8 || again.Fingerprint != first.Fingerprint {
		t.Errorf("got fingerprints %s and %s, want the same 8 digits", first.Fingerprint, again.Fingerprint)
	}
	// A fingerprint of the secret alone could be found by trying secrets.
	if other := sealed(t, sealer("b")).Secrets["client_secret"]; other.Fingerprint == first.Fingerprint || other.Key == first.Key {
		t.Error("another key gives the same fingerprint")
	}
}

// A secret opens in its own record and for its own place only.
func TestSealedSecretElsewhere(t *testing.T) {
	s := sealer("a")
	for name, move := range map[string]func(r *store.Record) (storeID, field string){
		"another integration": func(r *store.Record) (string, string) { r.ID = "int_abcdefghijkl"; return "store_1", "client_secret" },
		"another store":       func(*store.Record) (string, string) { return "store_2", "client_secret" },
		"another field": func(r *store.Record) (string, string) {
			r.Secrets["token"] = r.Secrets["client_secret"]
			return "store_1", "token"
		},
		"workspace_url": func(r *store.Record) (string, string) {
			r.Target["workspace_url"] = "https://evil"
			return "store_1", "client_secret"
		},
		"endpoint": func(r *store.Record) (string, string) {
			r.Target["endpoint"] = "evil"
			return "store_1", "client_secret"
		},
		"token_url": func(r *store.Record) (string, string) {
			r.Target["token_url"] = "https://evil"
			return "store_1", "client_secret"
		},
		"client_id": func(r *store.Record) (string, string) {
			r.Target["client_id"] = "evil"
			return "store_1", "client_secret"
		},
		"a removed key": func(r *store.Record) (string, string) {
			delete(r.Target, "endpoint")
			return "store_1", "client_secret"
		},
		"another type": func(r *store.Record) (string, string) {
			r.Target["client_id"] = []any{"id"}
			return "store_1", "client_secret"
		},
		"moved by a key": func(r *store.Record) (string, string) {
			r.Target["endpoint"], r.Target["token_url"] = "eh", "ttps://t"
			return "store_1", "client_secret"
		},
		"a changed byte": func(r *store.Record) (string, string) {
			r.Secrets["client_secret"].Data[20] ^= 1
			return "store_1", "client_secret"
		},
		"cut off": func(r *store.Record) (string, string) {
			one := r.Secrets["client_secret"]
			one.Data = one.Data[:5]
			r.Secrets["client_secret"] = one
			return "store_1", "client_secret"
		},
	} {
		r := sealed(t, s)
		storeID, field := move(r)
		if got, err := s.Open(r, storeID, field); !errors.Is(err, store.ErrSealed) || got != "" || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %q, %v, want an error that it does not open", name, got, err)
		}
	}
	r := sealed(t, s)
	r.Target["table"], r.Name = "main.other", "Other" // these may change
	if _, err := s.Open(r, "store_1", "client_secret"); err != nil {
		t.Errorf("another table: %v", err)
	}
	if _, err := s.Open(r, "store_1", "token"); err == nil || !strings.Contains(err.Error(), "has no token") {
		t.Errorf("got %v, want an error that names the missing secret", err)
	}
}

func TestSealingKeys(t *testing.T) {
	r := sealed(t, sealer("a"))
	if got, err := sealer("b", "a").Open(r, "store_1", "client_secret"); err != nil || got != secret {
		t.Errorf("a rotated key: got %q, %v", got, err)
	}
	for name, s := range map[string]*store.Store{"no keys": sealer(), "no key file": store.New(store.Options{Topic: "t"}), "another key": sealer("b")} {
		if _, err := s.Open(r, "store_1", "client_secret"); !errors.Is(err, store.ErrNoKey) || !strings.Contains(err.Error(), r.Secrets["client_secret"].Key) {
			t.Errorf("%s: got %v, want an error that names the missing key", name, err)
		}
	}
	// The name of a key does not make it the key.
	wrong := sealed(t, sealer("b"))
	one := wrong.Secrets["client_secret"]
	one.Key = r.Secrets["client_secret"].Key
	wrong.Secrets["client_secret"] = one
	if _, err := sealer("a").Open(wrong, "store_1", "client_secret"); !errors.Is(err, store.ErrSealed) {
		t.Errorf("got %v, want an error that it does not open", err)
	}
	if _, err := sealer().Seal(r, "store_1", "client_secret", secret); !errors.Is(err, store.ErrNoKey) || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("got %v, want an error that states how to make a key", err)
	}
	short := store.New(store.Options{Topic: "t", Keys: func() ([][]byte, error) { return [][]byte{testKey, []byte("short")}, nil }})
	if _, err := short.Open(r, "store_1", "client_secret"); !errors.Is(err, store.ErrNoKey) || !strings.Contains(err.Error(), "key 2 of store.keys has 5 bytes") {
		t.Errorf("got %v, want an error that names the short key", err)
	}
	unreadable := errors.New("open store.key: permission denied")
	broken := store.New(store.Options{Topic: "t", Keys: func() ([][]byte, error) { return nil, unreadable }})
	if _, err := broken.Open(r, "store_1", "client_secret"); !errors.Is(err, unreadable) {
		t.Errorf("got %v, want %v", err, unreadable)
	}
	if _, err := broken.Seal(r, "store_1", "client_secret", secret); !errors.Is(err, unreadable) {
		t.Errorf("got %v, want %v", err, unreadable)
	}
}

func TestReseal(t *testing.T) {
	r := sealed(t, sealer("a"))
	if _, changed, err := sealer("a").Reseal(r, "store_1"); err != nil || changed {
		t.Errorf("the same key: got %v, %v, want no change", changed, err)
	}
	resealed, changed, err := sealer("b", "a").Reseal(r, "store_1")
	if err != nil || !changed || resealed["client_secret"].Key == r.Secrets["client_secret"].Key {
		t.Fatalf("got %v, %v, want the secret under another key", changed, err)
	}
	r.Secrets = resealed
	if got, err := sealer("b").Open(r, "store_1", "client_secret"); err != nil || got != secret {
		t.Errorf("without the old key: got %q, %v", got, err)
	}
	if _, _, err := sealer("c").Reseal(r, "store_1"); !errors.Is(err, store.ErrNoKey) {
		t.Errorf("got %v, want an error that the key is missing", err)
	}
}

// Whatever is in the topic is a record that can be written again, or an error.
func FuzzStoreRecord(f *testing.F) {
	good, err := json.Marshal(record("orders"))
	must(f, err)
	f.Add("orders", bytes.Replace(good, []byte(`"revision":0`), []byte(`"revision":1`), 1))
	f.Add("orders", []byte(`{"format":2,"slug":"orders"}`))
	f.Add("orders", []byte(`{"format":1,"slug":"orders","id":"int_000000000000","revision":1,"target":{"a":[[[null,1e999]]]}}`))
	f.Add("A", []byte("\x00\xff{"))
	f.Fuzz(func(t *testing.T, slug string, value []byte) {
		r, err := store.ParseRecord(slug, value)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		must(t, err)
		if r.Slug != slug || r.Revision < 1 || r.Format > store.Format {
			t.Fatalf("got %+v for the key of %q", r, slug)
		}
		// Escapes can make it longer than it was.
		if len(again) <= store.MaxRecordBytes {
			if _, err := store.ParseRecord(slug, again); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
		}
	})
}

// No bytes open but those that were sealed.
func FuzzSealedSecret(f *testing.F) {
	s := sealer("a", "b")
	r := sealed(f, s)
	one := r.Secrets["client_secret"]
	f.Add(one.Key, one.Data, "https://abc.cloud.databricks.com")
	f.Add(one.Key, []byte{}, "")
	f.Add("", one.Data[:12], "\x00")
	f.Fuzz(func(t *testing.T, key string, data []byte, url string) {
		moved := record("orders")
		moved.Target["endpoint"], moved.Target["token_url"], moved.Target["workspace_url"] = "e", "https://t", url
		moved.Secrets = map[string]store.Sealed{"client_secret": {Key: key, Data: data}}
		got, err := s.Open(moved, "store_1", "client_secret")
		if bytes.Equal(data, one.Data) && url == r.Target["workspace_url"] && key == one.Key && err != nil ||
			err == nil && (got != secret || url != r.Target["workspace_url"]) {
			t.Fatalf("got %q, %v for %q and %x at %q", got, err, key, data, url)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Fatal("the error holds the secret")
		}
	})
}
