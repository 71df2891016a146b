package emulator

import (
	"cmp"
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

	"google.golang.org/grpc/codes"
)

const (
	maxAdminBytes = 1 << 20
	defaultLimit  = 10      // rows and duplicates listed when the query names no limit
	maxLimit      = 100_000 // most that one request lists
)

// problem is an answer of the admin API other than 400 for an error.
type problem struct {
	status int
	error
}

type handler func(*http.Request) (any, error)

// withBody makes a handler of what takes the body: one JSON object, in which a
// field that is not known is an error.
func withBody[T any](f func(*http.Request, T) (any, error)) handler {
	return func(r *http.Request) (any, error) {
		var in T
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, errors.New("body: more than one JSON value; send one")
		}
		return f(r, in)
	}
}

// admin is the API for the person at the emulator. It asks for no credentials.
// An error of a handler is answered with 400, no result with 204.
func (e *Emulator) admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBytes)
			v, err := f(r)
			var p *problem
			switch {
			case errors.As(err, &p):
				reply(w, p.status, map[string]string{"error": p.Error()})
			case err != nil:
				reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				reply(w, http.StatusOK, v)
			}
		})
	}
	e.adminTables(handle)
	handle("GET /emulator/faults", func(*http.Request) (any, error) { return map[string]any{"faults": e.Faults()}, nil })
	handle("POST /emulator/faults", withBody(func(_ *http.Request, f Fault) (any, error) { return e.AddFault(f) }))
	handle("DELETE /emulator/faults", func(*http.Request) (any, error) { e.ClearFaults(); return nil, nil })
	handle("DELETE /emulator/faults/{id}", func(r *http.Request) (any, error) {
		if id := r.PathValue("id"); !e.RemoveFault(id) {
			return nil, &problem{http.StatusNotFound, fmt.Errorf("no fault %q; GET /emulator/faults lists them", id)}
		}
		return nil, nil
	})
	handle("POST /emulator/rotate-secret", withBody(func(_ *http.Request, in struct {
		ClientSecret string `json:"client_secret"`
	}) (any, error) {
		if in.ClientSecret == "" {
			return nil, errors.New("client_secret is empty; give the new secret")
		}
		e.RotateSecret(in.ClientSecret)
		return nil, nil
	}))
	handle("POST /emulator/revoke-tokens", func(*http.Request) (any, error) { e.RevokeTokens(); return nil, nil })
	handle("GET /emulator/revoked", func(*http.Request) (any, error) { return map[string]any{"revoked": e.Revoked()}, nil })
	type privilege struct {
		Privilege string `json:"privilege"`
		On        string `json:"on"`
	}
	handle("POST /emulator/grant", withBody(func(_ *http.Request, in privilege) (any, error) { return nil, e.Grant(in.Privilege, in.On) }))
	handle("POST /emulator/revoke", withBody(func(_ *http.Request, in privilege) (any, error) { return nil, e.Revoke(in.Privilege, in.On) }))
	handle("POST /emulator/ingest-api", withBody(func(_ *http.Request, in struct {
		Enabled *bool `json:"enabled"`
	}) (any, error) {
		if in.Enabled == nil {
			return nil, errors.New(`want {"enabled":true} or {"enabled":false}`)
		}
		e.SetIngestAPI(*in.Enabled)
		return nil, nil
	}))
	handle("GET /emulator/streams", func(*http.Request) (any, error) {
		return map[string]any{"streams": append([]StreamInfo{}, e.Streams()...)}, nil
	})
	handle("GET /emulator/stats", func(*http.Request) (any, error) { return e.Stats(), nil })
	handle("POST /emulator/reset", func(*http.Request) (any, error) { return nil, internal(e.Reset()) })
	return mux
}

// internal makes an error one that the caller cannot help.
func internal(err error) error {
	if err == nil {
		return nil
	}
	return &problem{http.StatusInternalServerError, err}
}

// adminTables are the requests under /emulator/tables.
func (e *Emulator) adminTables(handle func(string, handler)) {
	find := func(r *http.Request) (*Table, error) {
		t := e.Table(r.PathValue("name"))
		if t == nil {
			return nil, &problem{http.StatusNotFound, fmt.Errorf("no table %q; GET /emulator/tables lists them", r.PathValue("name"))}
		}
		return t, nil
	}
	table := func(pattern string, f func(*http.Request, *Table) (any, error)) {
		method, rest, _ := strings.Cut(pattern, " ")
		handle(method+" /emulator/tables/{name}"+rest, func(r *http.Request) (any, error) {
			t, err := find(r)
			if err != nil {
				return nil, err
			}
			return f(r, t)
		})
	}
	handle("GET /emulator/tables", func(*http.Request) (any, error) { return map[string]any{"tables": e.Tables()}, nil })
	handle("POST /emulator/tables", func(r *http.Request) (any, error) {
		ddl, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		names, err := e.CreateTable(string(ddl))
		return map[string]any{"created": names}, err
	})
	table("GET ", func(_ *http.Request, t *Table) (any, error) {
		return map[string]any{"name": t.Name(), "columns": t.Columns(), "rows": t.Count(), "bytes": t.Bytes(), "ddl": t.DDL()}, nil
	})
	table("DELETE ", func(_ *http.Request, t *Table) (any, error) { return nil, internal(e.DropTable(t.Name())) })
	table("POST /columns", func(r *http.Request, t *Table) (any, error) {
		return withBody(func(_ *http.Request, c Column) (any, error) {
			err := t.AddColumn(c)
			return map[string]any{"columns": t.Columns()}, err
		})(r)
	})
	table("DELETE /columns/{column}", func(r *http.Request, t *Table) (any, error) { return nil, t.DropColumn(r.PathValue("column")) })
	table("PUT /columns/{column}/tags", func(r *http.Request, t *Table) (any, error) {
		return withBody(func(_ *http.Request, in struct {
			Tags []string `json:"tags"`
		}) (any, error) {
			return nil, t.SetColumnTags(r.PathValue("column"), in.Tags...)
		})(r)
	})
	table("PUT /kind", func(r *http.Request, t *Table) (any, error) {
		return withBody(func(_ *http.Request, in struct {
			TableType string `json:"table_type"`
			Format    string `json:"data_source_format"`
		}) (any, error) {
			return nil, t.SetKind(in.TableType, in.Format)
		})(r)
	})
	table("GET /count", func(_ *http.Request, t *Table) (any, error) { return map[string]int{"rows": t.Count()}, nil })
	table("GET /rows", adminRows)
	table("GET /distinct", func(r *http.Request, t *Table) (any, error) {
		column := cmp.Or(r.FormValue("column"), idColumn)
		return map[string]any{"column": column, "distinct": t.Distinct(column)}, nil
	})
	table("GET /duplicates", func(r *http.Request, t *Table) (any, error) {
		limit, err := limitOf(r)
		if err != nil {
			return nil, err
		}
		column := cmp.Or(r.FormValue("by"), idColumn)
		all := t.Duplicates(column)
		extra := 0
		for _, d := range all {
			extra += d.Count - 1
		}
		return map[string]any{"by": column, "values": len(all), "extra_rows": extra, "duplicates": all[:min(limit, len(all))]}, nil
	})
}

// adminRows lists rows, the newest first; column with equals, and stream, pick
// some.
func adminRows(r *http.Request, t *Table) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	column, equals, id := r.FormValue("column"), r.FormValue("equals"), r.FormValue("stream")
	if column == "" && r.Form.Has("equals") {
		return nil, errors.New("equals wants a column: ?column=user_id&equals=42")
	}
	n := limit
	if column != "" || id != "" {
		n = 0 // any of them may be one
	}
	out := []Row{}
	for _, row := range slices.Backward(t.snapshot(n)) {
		text, ok := "", true
		if column != "" {
			text, ok = row.Value(column)
		}
		if len(out) < limit && (id == "" || row.StreamID == id) && ok && (column == "" || text == equals) {
			out = append(out, row)
		}
	}
	return map[string]any{"rows": out}, nil
}

func limitOf(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, fmt.Errorf("limit %q: want 1 to %d", text, maxLimit)
	}
	return n, nil
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

// stats is guarded by mu; see count.
type stats struct {
	mu sync.Mutex
	Stats
}

// count changes the figures.
func (s *stats) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.Stats)
}

// begin counts a request and returns its number, from 1.
func (s *stats) begin(endpoint string, size int) (number int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Bytes += int64(size)
	s.Requests[endpoint]++
	return s.Requests[endpoint]
}

// ended counts the end of a request, of a gRPC stream, or of the attempt to
// open one. code is what Rejects counts, "" for none.
func (s *stats) ended(endpoint, status, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Responses[endpoint] == nil {
		s.Responses[endpoint] = map[string]int64{}
	}
	s.Responses[endpoint][status]++
	if code != "" {
		s.Rejects[code]++
	}
}

// streamEnded is ended for a gRPC stream.
func (s *stats) streamEnded(endpoint string, code codes.Code) {
	rejected := ""
	if code != codes.OK {
		rejected = codeName(code)
	}
	s.ended(endpoint, codeName(code), rejected)
}

func (s *stats) reset() {
	s.count(func(s *Stats) {
		*s = Stats{Requests: map[string]int64{}, Responses: map[string]map[string]int64{}, Rejects: map[string]int64{}, Faults: map[string]int64{}}
	})
}

// Stats returns the figures as they are now.
func (e *Emulator) Stats() Stats {
	e.streams.mu.Lock()
	defer e.streams.mu.Unlock()
	e.stats.mu.Lock()
	defer e.stats.mu.Unlock()
	out := e.stats.Stats
	out.InFlight, out.StreamsOpen = e.active.underWay(), len(e.streams.open)
	out.Requests, out.Rejects, out.Faults = maps.Clone(out.Requests), maps.Clone(out.Rejects), maps.Clone(out.Faults)
	out.Responses = maps.Clone(out.Responses)
	for endpoint, m := range out.Responses {
		out.Responses[endpoint] = maps.Clone(m)
	}
	return out
}
