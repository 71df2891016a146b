package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const benchTable = "datafly.events.stream"

// atEmulator is what the emulator's process reports once it serves. Control is always
// plain HTTP: the admin API and what benchmarks need beside it.
type atEmulator struct {
	URL     string `json:"url"`
	Zerobus string `json:"zerobus"` // the endpoint of transports grpc and rest
	Control string `json:"control"`
	CA      string `json:"ca,omitempty"`
}

// reached returns the settings by which the bridge writes over a transport.
func (at atEmulator) reached(transport string) []string {
	sets := []string{"zerobus.transport=" + transport}
	if transport != zerobus.TransportWorkspace {
		sets = append(sets, "zerobus.endpoint="+at.Zerobus, "zerobus.workspace_id="+emulator.DefaultWorkspaceID)
	}
	return sets
}

type emulatorSettings struct {
	TLS bool             `json:"tls"`
	Ack emulator.Latency `json:"ack"`           // waited before rows are acknowledged
	DDL string           `json:"ddl,omitempty"` // makes the table; the default one if empty
	// Probes times the arrival of probes over any transport and address; else only over
	// the address that times requests.
	Probes bool `json:"probes"`
}

// ackInterval is the least time between two acks of a stream: short, so that
// the latency asked for is what rules.
const ackInterval = time.Millisecond

// runEmulator is the role of the workspace.
func runEmulator(ctx context.Context, settings []byte) (err error) {
	var s emulatorSettings
	if err := json.Unmarshal(settings, &s); err != nil {
		return fmt.Errorf("reading the role's settings: %w", err)
	}
	e, err := emulator.New(emulator.Config{TLS: s.TLS, DDL: s.DDL, Latency: s.Ack, AckInterval: ackInterval, MaxRows: 100})
	if err != nil {
		return err
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		return err
	}
	if err := e.StartZerobus("127.0.0.1:0"); err != nil {
		return errors.Join(err, e.Close(ctx))
	}
	closing := context.WithoutCancel(ctx)
	defer func() {
		within, cancel := context.WithTimeout(closing, 5*time.Second)
		defer cancel()
		err = errors.Join(err, e.Close(within))
	}()
	w := &watched{emulator: e, next: e.Handler()}
	if s.Probes {
		e.Table(benchTable).OnRows(w.stored)
	}
	server := &http.Server{Handler: w.routes(), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the benchmark: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Close; waited for below
	at := atEmulator{URL: e.URL(), Zerobus: e.ZerobusURL(), Control: "http://" + listener.Addr().String(), CA: string(e.CAPEM())}
	if err := report(at); err != nil {
		return err
	}
	<-ctx.Done()
	err = server.Close()
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// watched is the workspace with its requests timed.
type watched struct {
	emulator *emulator.Emulator
	next     http.Handler
	owners   owners

	mu       sync.Mutex // guards the fields below
	served   []time.Duration
	arrivals []time.Duration // of probes, from producing to the answer
}

// timings are since the last time they were asked for, sorted, in nanoseconds.
type timings struct {
	Served   []time.Duration `json:"served"`   // how long each ingest request took the emulator
	Arrivals []time.Duration `json:"arrivals"` // from producing a probe until its row was about to be acknowledged; with Probes: was stored
}

func (w *watched) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", w.next)
	w.owners.routes(mux, w.next)
	mux.HandleFunc("POST "+emulator.IngestPath, w.ingest)
	mux.HandleFunc("POST "+rowsPath, bareRows(w.next))
	mux.HandleFunc("POST "+silentPath, silent(w.next))
	mux.HandleFunc("GET /bench/wait", func(rw http.ResponseWriter, r *http.Request) {
		rows, err := strconv.Atoi(r.FormValue("rows"))
		if err == nil {
			err = w.emulator.Table(benchTable).Wait(r.Context(), rows)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /bench/timings", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		t := timings{Served: w.served, Arrivals: w.arrivals}
		w.served, w.arrivals = nil, nil
		w.mu.Unlock()
		slices.Sort(t.Served)
		slices.Sort(t.Arrivals)
		_ = json.NewEncoder(rw).Encode(t) // the benchmark may have ended
	})
	return mux
}

// Probes are events among the others whose message id is the time at which
// they were produced.
const probeID = `probe-`

var probeMark = []byte(`"message_id":"` + probeID)

func (w *watched) ingest(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has closed the connection
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	began := time.Now()
	w.next.ServeHTTP(rw, r)
	ended := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served = append(w.served, ended.Sub(began))
	for {
		at := bytes.Index(body, probeMark)
		if at < 0 {
			return
		}
		body = body[at+len(probeMark):]
		if id, _, ok := bytes.Cut(body, []byte{'"'}); ok {
			if nanos, err := strconv.ParseInt(string(id), 10, 64); err == nil {
				w.arrivals = append(w.arrivals, ended.Sub(time.Unix(0, nanos)))
			}
		}
	}
}

// rowsPath takes rows without the name of the table.
const rowsPath = "/bench/rows"

// bareRows passes an array of rows to the workspace as rows of the table.
func bareRows(next http.Handler) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		inside := r.Clone(r.Context())
		inside.URL.Path, inside.RequestURI = emulator.IngestPath, emulator.IngestPath
		inside.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"table":"`+benchTable+`","records":`), r.Body, strings.NewReader("}")))
		inside.ContentLength = -1
		next.ServeHTTP(rw, inside)
	}
}

// stored records the arrival of probes among rows.
func (w *watched) stored(rows []emulator.Row) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, row := range rows {
		id, _ := row.Value("message_id")
		if text, ok := strings.CutPrefix(id, probeID); ok {
			if nanos, err := strconv.ParseInt(text, 10, 64); err == nil {
				w.arrivals = append(w.arrivals, now.Sub(time.Unix(0, nanos)))
			}
		}
	}
}

// workspace is the emulator's process, seen from this one.
type workspace struct {
	*child
	at atEmulator
}

func startWorkspace(ctx context.Context, dir string, s emulatorSettings) (*workspace, error) {
	c, err := startRole(ctx, dir, "emulator", s)
	if err != nil {
		return nil, err
	}
	w := &workspace{child: c}
	if err := c.read(ctx, &w.at); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return w, nil
}

// plain returns the workspace at the address that times requests, which is plain HTTP.
func (w *workspace) plain() *workspace {
	c := *w
	c.at.URL, c.at.CA = c.at.Control, ""
	return &c
}

// call sends a request to the emulator; out may be nil.
func (w *workspace) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	text, err := request(ctx, method, w.at.Control+path, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// wait returns when the table has n rows.
func (w *workspace) wait(ctx context.Context, n int) error {
	err := w.call(ctx, http.MethodGet, fmt.Sprintf("/bench/wait?rows=%d", n), nil, nil)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// counts returns how many rows the table has, and with how many message ids.
func (w *workspace) counts(ctx context.Context) (rows, distinct int, err error) {
	var r struct{ Rows, Distinct int }
	err = errors.Join(
		w.call(ctx, http.MethodGet, "/emulator/tables/"+benchTable+"/count", nil, &r),
		w.call(ctx, http.MethodGet, "/emulator/tables/"+benchTable+"/distinct", nil, &r),
	)
	return r.Rows, r.Distinct, err
}

func (w *workspace) reset(ctx context.Context) error {
	return w.call(ctx, http.MethodPost, "/emulator/reset", nil, nil)
}

func request(ctx context.Context, method, url string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s answered %s: %s", method, url, resp.Status, bytes.TrimSpace(text))
	}
	return text, err
}

// owners records which member writes which partition. Members have ingest paths of
// their own, and the message ids of their rows begin with the partition.
type owners struct {
	mu    sync.Mutex // guards the fields below
	last  map[int]lastRow
	moves []handover
}

// lastRow is the latest Write of a partition that was acknowledged.
type lastRow struct {
	Member  string        `json:"member"`
	At      time.Time     `json:"at"`
	Longest time.Duration `json:"longest_ns"` // between two such Writes
}

// handover is a partition's way from one member to another.
type handover struct {
	Partition int       `json:"partition"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Last      time.Time `json:"last"`  // the old owner's last rows were acknowledged
	First     time.Time `json:"first"` // the new owner's first rows were
}

// ownership is what was recorded.
type ownership struct {
	Partitions map[int]lastRow `json:"partitions"`
	Moves      []handover      `json:"moves"` // since it was last cleared
}

const (
	memberPath = "/bench/members/" // and the member's name: its ingest path
	spreadID   = `s-`              // message ids are s-<partition>-<number>
)

var spreadMark = []byte(`"message_id":"` + spreadID)

// partitionOf reads which partition the rows of one Write come from; false
// when there are none.
func partitionOf(body []byte) (int, bool) {
	at := bytes.Index(body, spreadMark)
	if at < 0 {
		return 0, false
	}
	digits, _, _ := bytes.Cut(body[at+len(spreadMark):], []byte{'-'})
	id, err := strconv.Atoi(string(digits))
	return id, err == nil
}

func (o *owners) record(partition int, member string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last = map[int]lastRow{}
	}
	before, known := o.last[partition]
	if known && before.Member != member {
		o.moves = append(o.moves, handover{partition, before.Member, member, before.At, at})
	}
	if known {
		before.Longest = max(before.Longest, at.Sub(before.At))
	}
	o.last[partition] = lastRow{member, at, before.Longest}
}

// routes adds the paths of the members to those of the workspace.
func (o *owners) routes(mux *http.ServeMux, next http.Handler) {
	mux.HandleFunc("POST "+memberPath+"{member}", func(rw http.ResponseWriter, r *http.Request) {
		member := r.PathValue("member")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has closed the connection
		}
		inside := r.Clone(r.Context())
		inside.URL.Path, inside.RequestURI = emulator.IngestPath, emulator.IngestPath
		inside.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(rw, inside)
		if partition, ok := partitionOf(body); ok {
			o.record(partition, member, time.Now())
		}
	})
	mux.HandleFunc("GET /bench/owners", func(rw http.ResponseWriter, _ *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		_ = json.NewEncoder(rw).Encode(ownership{o.last, o.moves}) // the benchmark may have ended
	})
	mux.HandleFunc("DELETE /bench/owners", func(http.ResponseWriter, *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last, o.moves = nil, nil
	})
}

// owners returns which member writes which partition.
func (w *workspace) owners(ctx context.Context) (o ownership, err error) {
	return o, w.call(ctx, http.MethodGet, "/bench/owners", nil, &o)
}
