package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// owners notes at the workspace's door which member writes which partition.
// Members come by doors of their own, and the message ids of what they carry
// begin with the partition.
type owners struct {
	mu    sync.Mutex // guards the fields below
	last  map[int]lastRow
	moves []handover
}

// lastRow is the latest Write of a partition that was acknowledged.
type lastRow struct {
	Member string    `json:"member"`
	At     time.Time `json:"at"`
}

// handover is a partition's way from one member to another.
type handover struct {
	Partition int       `json:"partition"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Last      time.Time `json:"last"`  // the old owner's last rows were acknowledged
	First     time.Time `json:"first"` // the new owner's first rows were
}

// ownership is what the door has seen.
type ownership struct {
	Partitions map[int]lastRow `json:"partitions"`
	Moves      []handover      `json:"moves"` // since the door was last cleared
}

const (
	memberDoor = "/bench/members/" // and the member's name: where it sends its rows
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

func (o *owners) note(partition int, member string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last = map[int]lastRow{}
	}
	before, known := o.last[partition]
	if known && before.Member != member {
		o.moves = append(o.moves, handover{partition, before.Member, member, before.At, at})
	}
	o.last[partition] = lastRow{member, at}
}

// routes adds the doors to those of the workspace.
func (o *owners) routes(mux *http.ServeMux, next http.Handler) {
	mux.HandleFunc("POST "+memberDoor+"{member}", func(rw http.ResponseWriter, r *http.Request) {
		member := r.PathValue("member")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has left
		}
		inside := r.Clone(r.Context())
		inside.URL.Path, inside.RequestURI = emulator.IngestPath, emulator.IngestPath
		inside.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(rw, inside)
		if partition, ok := partitionOf(body); ok {
			o.note(partition, member, time.Now())
		}
	})
	mux.HandleFunc("GET /bench/owners", func(rw http.ResponseWriter, _ *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		_ = json.NewEncoder(rw).Encode(ownership{o.last, o.moves}) // the benchmark may have left
	})
	mux.HandleFunc("DELETE /bench/owners", func(http.ResponseWriter, *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last, o.moves = nil, nil
	})
}

// owners asks the workspace's door who writes what.
func (w *workspace) owners(ctx context.Context) (o ownership, err error) {
	return o, w.call(ctx, http.MethodGet, "/bench/owners", nil, &o)
}
