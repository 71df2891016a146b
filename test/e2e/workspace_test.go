package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	tableName = "datafly.events.stream"
	clientID  = "3f1c9f2e-0000-4000-8000-5d0b6a1e7c11"
)

// workspace is an emulated one that notes every credential it sees.
type workspace struct {
	*emulator.Emulator
	t      testing.TB
	e      *evidence
	url    string
	secret string
	file   string // holds the secret, for client_secret_file

	mu     sync.Mutex  // guards the fields below
	tokens []time.Time // when each was minted
	// columns alters what Unity Catalog lists; nil: nothing.
	columns func(listed []map[string]any) []map[string]any
}

// newSecret makes one that looks different in every form it travels in.
func newSecret() string { return "s+/=" + rand.Text() }

func newWorkspace(t testing.TB, e *evidence, cfg emulator.Config) *workspace {
	t.Helper()
	w := &workspace{t: t, e: e, secret: newSecret(), file: filepath.Join(t.TempDir(), "client-secret")}
	cfg.ClientID, cfg.ClientSecret = clientID, w.secret
	e.secret("the client secret", w.secret)
	w.write(w.secret)
	var err error
	if w.Emulator, err = emulator.New(cfg); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.noting(w.Handler()))
	w.url = server.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.Close(ctx) // what is cut off is the children's, and they are gone
		server.Close()
	})
	return w
}

// write puts a secret into the file the bridge reads, as an operator does: at
// once, by renaming.
func (w *workspace) write(secret string) {
	w.t.Helper()
	next := w.file + ".next"
	if err := os.WriteFile(next, []byte(secret+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(next, w.file); err != nil {
		w.t.Fatal(err)
	}
}

// rotate makes a new secret the only good one.
func (w *workspace) rotate() (secret string) {
	secret = newSecret()
	w.e.secret("the rotated client secret", secret)
	w.RotateSecret(secret)
	return secret
}

// noting hands every token and every Authorization value to the evidence.
func (w *workspace) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
			w.e.secret("an Authorization value", value)
		}
		w.mu.Lock()
		alter := w.columns
		w.mu.Unlock()
		if alter != nil && strings.Contains(r.URL.Path, "/unity-catalog/tables/") {
			w.answerColumns(rw, r, next, alter)
			return
		}
		if r.URL.Path != emulator.TokenPath {
			next.ServeHTTP(rw, r)
			return
		}
		tee := &tee{ResponseWriter: rw}
		next.ServeHTTP(tee, r)
		var answer struct {
			Token string `json:"access_token"`
		}
		if json.Unmarshal(tee.body.Bytes(), &answer) == nil && answer.Token != "" {
			w.e.secret("a token", answer.Token)
			w.mu.Lock()
			w.tokens = append(w.tokens, time.Now())
			w.mu.Unlock()
		}
	})
}

// answerColumns answers for a table with other columns than it has.
func (w *workspace) answerColumns(rw http.ResponseWriter, r *http.Request, next http.Handler, alter func([]map[string]any) []map[string]any) {
	kept := httptest.NewRecorder()
	next.ServeHTTP(kept, r)
	var doc map[string]json.RawMessage
	var listed []map[string]any
	if err := json.Unmarshal(kept.Body.Bytes(), &doc); err != nil {
		w.t.Errorf("the table document: %v", err)
	}
	if err := json.Unmarshal(doc["columns"], &listed); err != nil {
		w.t.Errorf("the columns of the table document: %v", err)
	}
	doc["columns"], _ = json.Marshal(alter(listed))
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(doc)
}

// lists has Unity Catalog list other columns from now on.
func (w *workspace) lists(alter func(listed []map[string]any) []map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.columns = alter
}

// minted is how many tokens were handed out.
func (w *workspace) minted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tokens)
}

// tee keeps a copy of an answer.
type tee struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (t *tee) Write(p []byte) (int, error) {
	t.body.Write(p)
	return t.ResponseWriter.Write(p)
}

func (t *tee) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// table is the table the bridge writes to.
func (w *workspace) table() *emulator.Table {
	w.t.Helper()
	table := w.Table(tableName)
	if table == nil {
		w.t.Fatalf("the workspace has no table %s", tableName)
	}
	return table
}

// fault adds one and returns what takes it away again.
func (w *workspace) fault(f emulator.Fault) (resolve func()) {
	w.t.Helper()
	added, err := w.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return func() { w.RemoveFault(added.ID) }
}

// ids returns the message ids in the table and how often each is there.
func (w *workspace) ids() map[string]int {
	ids := map[string]int{}
	for _, row := range w.table().Rows(nil) {
		id, _ := row.Value("message_id")
		ids[id]++
	}
	return ids
}
