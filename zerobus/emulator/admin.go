package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

const (
	maxAdminBytes = 1 << 20
	defaultLimit  = 10      // rows and duplicates listed when the query names no limit
	maxLimit      = 100_000 // most that one request lists
)

// problem is a refusal of the admin API.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

func badRequest(err error) error { return &problem{http.StatusBadRequest, err.Error()} }

// admin is the API for the person at the emulator. It asks for no credentials.
func (e *Emulator) admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBytes)
			v, err := f(r)
			var p *problem
			switch {
			case errors.As(err, &p):
				reply(w, p.status, map[string]string{"error": p.text})
			case err != nil:
				reply(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				reply(w, http.StatusOK, v)
			}
		})
	}
	table := func(pattern string, f func(*http.Request, *Table) (any, error)) {
		method, rest, _ := strings.Cut(pattern, " ")
		handle(method+" /emulator/tables/{name}"+rest, func(r *http.Request) (any, error) {
			t := e.Table(r.PathValue("name"))
			if t == nil {
				return nil, &problem{http.StatusNotFound, fmt.Sprintf("no table %q; GET /emulator/tables lists them", r.PathValue("name"))}
			}
			return f(r, t)
		})
	}

	handle("GET /emulator/tables", func(*http.Request) (any, error) { return map[string]any{"tables": e.Tables()}, nil })
	handle("POST /emulator/tables", e.adminCreateTable)
	table("GET ", func(_ *http.Request, t *Table) (any, error) {
		return map[string]any{"name": t.Name(), "columns": t.Columns(), "rows": t.Count(), "bytes": t.Bytes(), "ddl": t.DDL()}, nil
	})
	table("DELETE ", func(_ *http.Request, t *Table) (any, error) { return nil, e.DropTable(t.Name()) })
	table("POST /columns", adminAddColumn)
	table("DELETE /columns/{column}", func(r *http.Request, t *Table) (any, error) {
		if err := t.DropColumn(r.PathValue("column")); err != nil {
			return nil, badRequest(err)
		}
		return nil, nil
	})
	table("PUT /columns/{column}/tags", func(r *http.Request, t *Table) (any, error) {
		in, err := decode[struct {
			Tags []string `json:"tags"`
		}](r.Body)
		if err != nil {
			return nil, err
		}
		if err := t.SetColumnTags(r.PathValue("column"), in.Tags...); err != nil {
			return nil, badRequest(err)
		}
		return nil, nil
	})
	table("PUT /kind", func(r *http.Request, t *Table) (any, error) {
		in, err := decode[struct {
			TableType string `json:"table_type"`
			Format    string `json:"data_source_format"`
		}](r.Body)
		if err != nil {
			return nil, err
		}
		if err := t.SetKind(in.TableType, in.Format); err != nil {
			return nil, badRequest(err)
		}
		return nil, nil
	})
	table("GET /count", func(_ *http.Request, t *Table) (any, error) { return map[string]int{"rows": t.Count()}, nil })
	table("GET /rows", adminRows)
	table("GET /distinct", func(r *http.Request, t *Table) (any, error) {
		column := orID(r.FormValue("column"))
		return map[string]any{"column": column, "distinct": t.Distinct(column)}, nil
	})
	table("GET /duplicates", func(r *http.Request, t *Table) (any, error) {
		limit, err := limitOf(r)
		if err != nil {
			return nil, err
		}
		column := orID(r.FormValue("by"))
		all := t.Duplicates(column)
		extra := 0
		for _, d := range all {
			extra += d.Count - 1
		}
		return map[string]any{"by": column, "values": len(all), "extra_rows": extra, "duplicates": all[:min(limit, len(all))]}, nil
	})

	handle("GET /emulator/faults", func(*http.Request) (any, error) { return map[string]any{"faults": e.Faults()}, nil })
	handle("POST /emulator/faults", func(r *http.Request) (any, error) {
		f, err := decode[Fault](r.Body)
		if err != nil {
			return nil, err
		}
		added, err := e.AddFault(f)
		if err != nil {
			return nil, badRequest(err)
		}
		return added, nil
	})
	handle("DELETE /emulator/faults", func(*http.Request) (any, error) { e.ClearFaults(); return nil, nil })
	handle("DELETE /emulator/faults/{id}", func(r *http.Request) (any, error) {
		if !e.RemoveFault(r.PathValue("id")) {
			return nil, &problem{http.StatusNotFound, fmt.Sprintf("no fault %q; GET /emulator/faults lists them", r.PathValue("id"))}
		}
		return nil, nil
	})

	handle("POST /emulator/rotate-secret", e.adminRotateSecret)
	handle("POST /emulator/revoke-tokens", func(*http.Request) (any, error) { e.RevokeTokens(); return nil, nil })
	handle("GET /emulator/revoked", func(*http.Request) (any, error) { return map[string]any{"revoked": e.Revoked()}, nil })
	handle("POST /emulator/grant", adminPrivilege(e.Grant))
	handle("POST /emulator/revoke", adminPrivilege(e.Revoke))
	handle("POST /emulator/ingest-api", func(r *http.Request) (any, error) {
		in, err := decode[struct {
			Enabled *bool `json:"enabled"`
		}](r.Body)
		if err != nil {
			return nil, err
		}
		if in.Enabled == nil {
			return nil, badRequest(errors.New(`want {"enabled":true} or {"enabled":false}`))
		}
		e.SetIngestAPI(*in.Enabled)
		return nil, nil
	})
	handle("GET /emulator/streams", func(*http.Request) (any, error) {
		list := e.Streams()
		if list == nil {
			list = []StreamInfo{}
		}
		return map[string]any{"streams": list}, nil
	})
	handle("GET /emulator/stats", func(*http.Request) (any, error) { return e.Stats(), nil })
	handle("POST /emulator/reset", func(*http.Request) (any, error) { return nil, e.Reset() })
	return mux
}

func (e *Emulator) adminCreateTable(r *http.Request) (any, error) {
	ddl, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, badRequest(err)
	}
	names, err := e.CreateTable(string(ddl))
	if err != nil {
		return nil, badRequest(err)
	}
	return map[string]any{"created": names}, nil
}

func adminAddColumn(r *http.Request, t *Table) (any, error) {
	c, err := decode[Column](r.Body)
	if err != nil {
		return nil, err
	}
	if err := t.AddColumn(c); err != nil {
		return nil, badRequest(err)
	}
	return map[string]any{"columns": t.Columns()}, nil
}

// adminRows lists rows, the newest first; column with equals, and stream, pick
// some.
func adminRows(r *http.Request, t *Table) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	column, equals, id := r.FormValue("column"), r.FormValue("equals"), r.FormValue("stream")
	if column == "" && id == "" {
		if r.Form.Has("equals") {
			return nil, badRequest(errors.New("equals wants a column: ?column=user_id&equals=42"))
		}
		rows := t.Newest(limit)
		if rows == nil {
			rows = []Row{}
		}
		return map[string]any{"rows": rows}, nil
	}
	if column == "" && r.Form.Has("equals") {
		return nil, badRequest(errors.New("equals wants a column: ?column=user_id&equals=42"))
	}
	found := t.Stream(id)
	if id == "" {
		found = t.Rows(nil)
	}
	if column != "" {
		found = slices.DeleteFunc(found, func(row Row) bool {
			text, ok := row.Value(column)
			return !ok || text != equals
		})
	}
	out := []Row{}
	for i := len(found) - 1; i >= 0 && len(out) < limit; i-- {
		out = append(out, found[i])
	}
	return map[string]any{"rows": out}, nil
}

func (e *Emulator) adminRotateSecret(r *http.Request) (any, error) {
	in, err := decode[struct {
		ClientSecret string `json:"client_secret"`
	}](r.Body)
	if err != nil {
		return nil, err
	}
	if in.ClientSecret == "" {
		return nil, badRequest(errors.New("client_secret is empty; give the new secret"))
	}
	e.RotateSecret(in.ClientSecret)
	return nil, nil
}

func adminPrivilege(set func(privilege, on string) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		in, err := decode[struct {
			Privilege string `json:"privilege"`
			On        string `json:"on"`
		}](r.Body)
		if err != nil {
			return nil, err
		}
		if err := set(in.Privilege, in.On); err != nil {
			return nil, badRequest(err)
		}
		return nil, nil
	}
}

func orID(column string) string {
	if column == "" {
		return idColumn
	}
	return column
}

func limitOf(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, badRequest(fmt.Errorf("limit %q: want 1 to %d", text, maxLimit))
	}
	return n, nil
}

// decode reads one JSON object; a field that is not known is an error.
func decode[T any](r io.Reader) (T, error) {
	var v T
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, badRequest(fmt.Errorf("body: %w", err))
	}
	if _, err := d.Token(); err != io.EOF {
		return v, badRequest(errors.New("body: more than one JSON value; send one"))
	}
	return v, nil
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have left
}

// Stats are figures since New or the last Reset.
type Stats struct {
	Requests  map[string]int64            `json:"requests"`  // by endpoint; of stream: messages
	Responses map[string]map[string]int64 `json:"responses"` // by endpoint and status; of create and stream: by how they ended
	Rejects   map[string]int64            `json:"rejects"`   // requests to write refused and streams ended, by error code
	Faults    map[string]int64            `json:"faults"`    // faults applied, by effect
	Tokens    int64                       `json:"tokens_minted"`
	Rows      int64                       `json:"rows"`           // rows kept, over all tables
	Bytes     int64                       `json:"bytes_received"` // request bodies, unpacked
	InFlight  int                         `json:"in_flight"`      // requests being served, the one that asks included

	Connections   int64 `json:"connections"` // gRPC connections accepted
	StreamsOpen   int   `json:"streams_open"`
	StreamsOpened int64 `json:"streams_opened"`
	StreamRows    int64 `json:"stream_rows"`  // rows kept that came by gRPC
	Acks          int64 `json:"acks"`         // sent on gRPC streams
	UnackedRows   int64 `json:"unacked_rows"` // kept on streams that ended before the ack was sent: a client sends them again, and those whose ack a cut connection swallowed
}

type stats struct {
	received, rows, minted atomic.Int64

	mu        sync.Mutex
	begun     map[string]int64
	responses map[string]map[string]int64
	rejects   map[string]int64
	faults    map[string]int64
}

func bump[K comparable](m *map[K]int64, key K) {
	if *m == nil {
		*m = map[K]int64{}
	}
	(*m)[key]++
}

// begin counts a request and returns its number, from 1.
func (s *stats) begin(endpoint string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	bump(&s.begun, endpoint)
	return s.begun[endpoint]
}

func (s *stats) answered(endpoint string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.responses == nil {
		s.responses = map[string]map[string]int64{}
	}
	m := s.responses[endpoint]
	bump(&m, strconv.Itoa(a.status))
	s.responses[endpoint] = m
	if bringsRows(endpoint) && a.code != "" {
		bump(&s.rejects, a.code)
	}
}

// ended counts the end of a gRPC stream, or of the attempt to open one.
func (s *stats) ended(endpoint string, code codes.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.responses == nil {
		s.responses = map[string]map[string]int64{}
	}
	m := s.responses[endpoint]
	bump(&m, codeName(code))
	s.responses[endpoint] = m
	if code != codes.OK {
		bump(&s.rejects, codeName(code))
	}
}

func (s *stats) fault(effect string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bump(&s.faults, effect)
}

func (s *stats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.responses, s.rejects, s.faults = nil, nil, nil, nil
	s.received.Store(0)
	s.rows.Store(0)
	s.minted.Store(0)
}

// Stats returns the figures as they are now.
func (e *Emulator) Stats() Stats {
	s, x := &e.stats, &e.streams
	x.mu.Lock()
	defer x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{
		Requests: map[string]int64{}, Responses: map[string]map[string]int64{}, Rejects: map[string]int64{}, Faults: map[string]int64{},
		Tokens: s.minted.Load(), Rows: s.rows.Load(), Bytes: s.received.Load(), InFlight: e.active.underWay(),
		Connections: x.conns, StreamsOpen: len(x.open), StreamsOpened: x.count, StreamRows: x.rows, Acks: x.acks, UnackedRows: x.unacked,
	}
	maps.Copy(out.Requests, s.begun)
	maps.Copy(out.Rejects, s.rejects)
	maps.Copy(out.Faults, s.faults)
	for endpoint, m := range s.responses {
		out.Responses[endpoint] = maps.Clone(m)
	}
	return out
}
