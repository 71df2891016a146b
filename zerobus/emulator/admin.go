package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

const (
	maxAdminBytes = 1 << 20
	defaultLimit  = 10      // rows and duplicates listed without a limit in the query
	maxLimit      = 100_000 // most that one request lists
)

// adminError is an error with a status other than 400.
type adminError struct {
	status int
	error
}

func notFound(what, name, list string) error {
	return &adminError{http.StatusNotFound, fmt.Errorf("no %s %q; GET %s lists them", what, name, list)}
}

// internal is an error that the caller cannot resolve.
func internal(err error) error {
	if err == nil {
		return nil
	}
	return &adminError{http.StatusInternalServerError, err}
}

// decode reads a request's body: one JSON object with known fields only.
func decode[T any](r *http.Request) (in T, err error) {
	if err := json.UnmarshalRead(r.Body, &in, json.RejectUnknownMembers(true)); err != nil {
		return in, fmt.Errorf("body: %w", err)
	}
	return in, nil
}

// admin is the admin API, which asks for no credentials. An error of a handler
// is answered with 400, no result with 204.
func (e *Emulator) admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBytes)
			v, err := f(r)
			var other *adminError
			switch {
			case errors.As(err, &other):
				reply(w, other.status, map[string]string{"error": other.Error()})
			case err != nil:
				reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				reply(w, http.StatusOK, v)
			}
		})
	}
	handle("GET /emulator/faults", func(*http.Request) (any, error) { return map[string]any{"faults": e.Faults()}, nil })
	handle("POST /emulator/faults", func(r *http.Request) (any, error) {
		f, err := decode[Fault](r)
		if err != nil {
			return nil, err
		}
		return e.AddFault(f)
	})
	handle("DELETE /emulator/faults", func(*http.Request) (any, error) { e.ClearFaults(); return nil, nil })
	handle("DELETE /emulator/faults/{id}", func(r *http.Request) (any, error) {
		if id := r.PathValue("id"); !e.RemoveFault(id) {
			return nil, notFound("fault", id, "/emulator/faults")
		}
		return nil, nil
	})
	handle("POST /emulator/rotate-secret", func(r *http.Request) (any, error) {
		in, err := decode[struct {
			ClientSecret string `json:"client_secret"`
		}](r)
		if err == nil && in.ClientSecret == "" {
			err = errors.New("client_secret is empty; give the new secret")
		}
		if err == nil {
			e.RotateSecret(in.ClientSecret)
		}
		return nil, err
	})
	handle("POST /emulator/federation", func(r *http.Request) (any, error) {
		in, err := decode[Federation](r)
		if err == nil {
			err = e.SetFederation(in)
		}
		return nil, err
	})
	handle("POST /emulator/revoke-tokens", func(*http.Request) (any, error) { e.RevokeTokens(); return nil, nil })
	handle("GET /emulator/revoked", func(*http.Request) (any, error) { return map[string]any{"revoked": e.Revoked()}, nil })
	for verb, set := range map[string]func(privilege, on string) error{"grant": e.Grant, "revoke": e.Revoke} {
		handle("POST /emulator/"+verb, func(r *http.Request) (any, error) {
			in, err := decode[struct {
				Privilege string `json:"privilege"`
				On        string `json:"on"`
			}](r)
			if err == nil {
				err = set(in.Privilege, in.On)
			}
			return nil, err
		})
	}
	for path, set := range map[string]func(on bool){"ingest-api": e.SetIngestAPI, "http2": e.SetHTTP2} {
		handle("POST /emulator/"+path, func(r *http.Request) (any, error) {
			in, err := decode[struct {
				Enabled *bool `json:"enabled"`
			}](r)
			if err == nil && in.Enabled == nil {
				err = errors.New(`want {"enabled":true} or {"enabled":false}`)
			}
			if err == nil {
				set(*in.Enabled)
			}
			return nil, err
		})
	}
	handle("GET /emulator/securables", func(*http.Request) (any, error) { return map[string]any{"securables": e.Securables()}, nil })
	handle("DELETE /emulator/securables/{name}", func(r *http.Request) (any, error) {
		if name := r.PathValue("name"); e.owner(strings.ToLower(name)) == "" {
			return nil, notFound("securable", name, "/emulator/securables")
		}
		return nil, internal(e.Drop(r.PathValue("name")))
	})
	handle("GET /emulator/warehouses", func(*http.Request) (any, error) { return map[string]any{"warehouses": e.Warehouses()}, nil })
	handle("PUT /emulator/warehouses", func(r *http.Request) (any, error) {
		in, err := decode[struct {
			Warehouses []Warehouse `json:"warehouses"`
		}](r)
		if err == nil {
			err = e.SetWarehouses(in.Warehouses...)
		}
		return nil, err
	})
	handle("GET /emulator/streams", func(*http.Request) (any, error) { return map[string]any{"streams": e.Streams()}, nil })
	handle("GET /emulator/stats", func(*http.Request) (any, error) { return e.Stats(), nil })
	handle("POST /emulator/reset", func(*http.Request) (any, error) { return nil, internal(e.Reset()) })
	handle("GET /emulator/tables", func(*http.Request) (any, error) { return map[string]any{"tables": e.Tables()}, nil })
	handle("POST /emulator/tables", func(r *http.Request) (any, error) {
		ddl, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		names, err := e.CreateTable(string(ddl))
		return map[string]any{"created": names}, err
	})
	for request, f := range e.adminOfTable() {
		handle(request[0]+" /emulator/tables/{name}"+request[1], func(r *http.Request) (any, error) {
			t := e.Table(r.PathValue("name"))
			if t == nil {
				return nil, notFound("table", r.PathValue("name"), "/emulator/tables")
			}
			return f(r, t)
		})
	}
	return mux
}

// adminOfTable are the requests under /emulator/tables/{name}, by method and
// the rest of the path.
func (e *Emulator) adminOfTable() map[[2]string]func(*http.Request, *Table) (any, error) {
	return map[[2]string]func(*http.Request, *Table) (any, error){
		{"GET", ""}: func(_ *http.Request, t *Table) (any, error) {
			return map[string]any{"name": t.Name(), "columns": t.Columns(), "rows": t.Count(), "bytes": t.Bytes(), "ddl": t.DDL()}, nil
		},
		{"DELETE", ""}: func(_ *http.Request, t *Table) (any, error) { return nil, internal(e.DropTable(t.Name())) },
		{"POST", "/columns"}: func(r *http.Request, t *Table) (any, error) {
			c, err := decode[Column](r)
			if err == nil {
				err = t.AddColumn(c)
			}
			return map[string]any{"columns": t.Columns()}, err
		},
		{"DELETE", "/columns/{column}"}: func(r *http.Request, t *Table) (any, error) { return nil, t.DropColumn(r.PathValue("column")) },
		{"PUT", "/columns/{column}/tags"}: func(r *http.Request, t *Table) (any, error) {
			in, err := decode[struct {
				Tags []string `json:"tags"`
			}](r)
			if err == nil {
				err = t.SetColumnTags(r.PathValue("column"), in.Tags...)
			}
			return nil, err
		},
		{"PUT", "/kind"}: func(r *http.Request, t *Table) (any, error) {
			in, err := decode[struct {
				TableType string `json:"table_type"`
				Format    string `json:"data_source_format"`
			}](r)
			if err == nil {
				err = t.SetKind(in.TableType, in.Format)
			}
			return nil, err
		},
		{"GET", "/count"}: func(_ *http.Request, t *Table) (any, error) { return map[string]int{"rows": t.Count()}, nil },
		{"GET", "/rows"}:  adminRows,
		{"GET", "/distinct"}: func(r *http.Request, t *Table) (any, error) {
			column := cmp.Or(r.FormValue("column"), idColumn)
			return map[string]any{"column": column, "distinct": t.Distinct(column)}, nil
		},
		{"GET", "/duplicates"}: func(r *http.Request, t *Table) (any, error) {
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
		},
	}
}

// adminRows lists rows, the newest first; column with equals, and stream,
// select some.
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
		n = 0 // any row may match
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
