package main

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// endpoints are those that take rows, by the transports of the run.
func (r *run) endpoints() []string {
	switch r.o.transport {
	case "workspace":
		return []string{emulator.EndpointIngest}
	case "rest":
		return []string{emulator.EndpointInsert}
	case "grpc":
		return []string{emulator.EndpointStream}
	}
	return []string{emulator.EndpointIngest, emulator.EndpointInsert, emulator.EndpointStream}
}

// scripted has the emulator misbehave at endpoints for the fault's length.
func (r *run) scripted(d *doing, f emulator.Fault, at ...string) error {
	f.Seed = uint64(d.Target)
	var err error
	for _, endpoint := range at {
		f.Endpoint = endpoint
		added, aerr := r.rig.workspace.AddFault(f)
		if aerr != nil {
			err = errors.Join(err, aerr)
			continue
		}
		defer func() { r.rig.workspace.RemoveFault(added.ID) }()
	}
	r.last(d)
	return err
}

// sinkStatus answers requests with a status. What blocks a member for half a
// minute befalls only some: count of them, 0 for half of all.
func sinkStatus(status, count int) func(*run, *doing) error {
	return func(r *run, d *doing) error {
		f := emulator.Fault{Effect: emulator.EffectStatus, Status: status, Count: count}
		if count == 0 {
			f.Probability = 0.5
		}
		if status == 429 {
			f.RetryAfter = 1
		}
		at := r.endpoints()
		if count > 0 {
			at = at[d.Target%len(at):][:1]
		}
		return r.scripted(d, f, at...)
	}
}

func (r *run) sinkKept(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectStatus, Status: 504, Keep: true, Probability: 0.3}, r.endpoints()...)
}

func (r *run) sinkHang(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectHang, Count: 2}, r.endpoints()...)
}

func (r *run) sinkClosed(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectCut, Probability: 0.4}, r.endpoints()...)
}

func (r *run) ackLost(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectLoseAck, Probability: 0.3}, r.endpoints()...)
}

// answerGarbled keeps rows and answers 200 with half an object; on streams,
// with a response of a kind that does not exist.
func (r *run) answerGarbled(d *doing) error {
	over := r.endpoints()
	if i := slices.Index(over, emulator.EndpointStream); i >= 0 {
		added, err := r.rig.workspace.AddFault(emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectUnknown, Probability: 0.2})
		if err != nil {
			return err
		}
		defer r.rig.workspace.RemoveFault(added.ID)
		over = slices.Delete(over, i, i+1)
	}
	half := `{"records_ing`
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectStatus, Status: 200, Body: &half, Keep: true, Probability: 0.3}, over...)
}

// htmlPage is how proxies and gateways say no.
const htmlPage = "<html><head><title>Error</title></head><body><h1>Error</h1></body></html>"

// An answer that is not the service's has its connection closed, which another
// request may be using by then: answerLies and proxyRefuses lose acknowledgements.

// answerLies keeps no row and answers 2xx with what confirms none, each request
// in one of many ways or, half of the times, as usual.
func (r *run) answerLies(d *doing) error {
	failed := `{"error_code":"PERMISSION_DENIED","message":"no"}`
	empty, object, whole, within := "", `{}`, `{"records_ingested":1}`, 5
	var faults []emulator.Fault
	lie := func(endpoint string, f emulator.Fault) {
		f.Endpoint, f.Effect, f.Probability, f.Seed = endpoint, emulator.EffectStatus, 0.06, uint64(d.Target+len(faults))
		faults = append(faults, f)
	}
	for _, endpoint := range r.httpEndpoints() {
		for _, status := range []int{201, 202, 204, 206, 207} {
			f := emulator.Fault{Status: status, Body: &object}
			if status == http.StatusNoContent {
				f.Body = &empty
			}
			lie(endpoint, f)
		}
		lie(endpoint, emulator.Fault{Status: 200, Body: &whole, CutAfter: &within})
		for _, body := range []string{failed, `{"error":"access_denied"}`, "", "  \n", `{"records_ing`, `[]`, `null`, htmlPage} {
			lie(endpoint, emulator.Fault{Status: 200, Body: &body})
		}
		if endpoint == emulator.EndpointIngest { // which says how many rows it took
			for _, body := range []string{`{}`, `{"records_ingested":null}`, `{"records_ingested":0}`, `{"records_ingested":401}`} {
				lie(endpoint, emulator.Fault{Status: 200, Body: &body})
			}
		}
	}
	return r.scriptedAll(d, faults)
}

// httpEndpoints are those that take rows over HTTP, by the transports of the
// run.
func (r *run) httpEndpoints() []string {
	return slices.DeleteFunc(r.endpoints(), func(e string) bool { return e == emulator.EndpointStream })
}

// proxyRefuses answers good rows with refusals that are not the service's: its
// shape is missing, and over gRPC its error code and detail.
func (r *run) proxyRefuses(d *doing) error {
	html, empty, foreign := htmlPage, "", `{"error":{"code":400,"message":"Bad Request"}}`
	var faults []emulator.Fault
	for _, endpoint := range r.endpoints() {
		if endpoint == emulator.EndpointStream {
			faults = append(faults, emulator.Fault{Endpoint: endpoint, GRPCCode: "INVALID_ARGUMENT", Message: "bad request", Probability: 0.15})
			continue
		}
		for _, status := range []int{400, 413, 422} {
			faults = append(faults,
				emulator.Fault{Endpoint: endpoint, Status: status, Body: &html, ContentType: "text/html", Probability: 0.08},
				emulator.Fault{Endpoint: endpoint, Status: status, Body: &empty, Probability: 0.08},
				emulator.Fault{Endpoint: endpoint, Status: status, Body: &foreign, Probability: 0.08})
		}
	}
	for i := range faults {
		faults[i].Effect, faults[i].Seed = emulator.EffectStatus, uint64(d.Target+i)
	}
	return r.scriptedAll(d, faults)
}

// refusedOnce has the service refuse some good rows, in its own words, until
// each has come alone, and then once. Who gives a row up on its first refusal
// gives up good ones.
func (r *run) refusedOnce(d *doing) error {
	r.refusing.Lock()
	defer r.refusing.Unlock()
	var mu sync.Mutex
	alone := map[uint32]bool{} // events whose row came alone, and was refused; guarded by mu
	r.rig.workspace.OnIngest(func(req emulator.IngestRequest) *emulator.Fault {
		for _, text := range req.Rows {
			row, err := r.ledger.maker.read(text)
			if err != nil || r.ledger.maker.dice(row.number)%128 != uint64(d.Target)%128 {
				continue
			}
			mu.Lock()
			again := alone[row.number]
			alone[row.number] = again || len(req.Rows) == 1
			mu.Unlock()
			if !again {
				return &emulator.Fault{Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{MessageIDs: []string{r.ledger.maker.id(row.number)}}}
			}
		}
		return nil
	})
	defer r.rig.workspace.OnIngest(nil)
	r.last(d)
	return nil
}

// scriptedAll has the emulator misbehave in several ways for the fault's length.
func (r *run) scriptedAll(d *doing, faults []emulator.Fault) error {
	var err error
	for _, f := range faults {
		added, aerr := r.rig.workspace.AddFault(f)
		if aerr != nil {
			err = errors.Join(err, aerr)
			continue
		}
		defer r.rig.workspace.RemoveFault(added.ID)
	}
	r.last(d)
	return err
}

func (r *run) tokensRevoked(*doing) error {
	r.rig.workspace.RevokeTokens()
	return nil
}

func (r *run) tokensDown(d *doing) error {
	r.rig.workspace.RevokeTokens()
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectStatus, Status: 503}, emulator.EndpointToken)
}

func (r *run) clockJump(*doing) error {
	r.rig.workspace.AgeTokens(59 * time.Minute)
	return nil
}

func (r *run) secretRotated(*doing) error {
	secret := r.rig.secrets.fresh()
	r.rig.workspace.RotateSecret(secret)
	if err := r.rig.secrets.write(secret); err != nil {
		return err
	}
	r.rig.workspace.RevokeTokens() // or the new one would not be asked for within the run
	return nil
}

func (r *run) schemaDrift(d *doing) error {
	r.drifting.Lock()
	defer r.drifting.Unlock()
	if err := r.rig.table.DropColumn(driftColumn); err != nil {
		return err
	}
	r.ledger.columnsChanged()
	r.last(d)
	err := r.rig.table.AddColumn(emulator.Column{Name: driftColumn, Type: "STRING"})
	r.ledger.columnsChanged()
	return err
}

func (r *run) streamClose(d *doing) error {
	window := emulator.Duration(500 * time.Millisecond)
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectCloseSignal, Window: &window, Probability: 0.02}, emulator.EndpointStream)
}

func (r *run) streamGoAway(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectGoAway, Probability: 0.05}, emulator.EndpointStream)
}

// acksAhead acknowledges what was never sent, on open streams and on those that
// are not confirmed yet, while other messages on the way are not kept.
func (r *run) acksAhead(d *doing) error {
	ahead := int64(1000)
	return r.scriptedAll(d, []emulator.Fault{
		{Endpoint: emulator.EndpointCreate, Effect: emulator.EffectAck, AckOffset: &ahead, Probability: 0.3, Seed: uint64(d.Target)},
		{Endpoint: emulator.EndpointStream, Effect: emulator.EffectAck, AckBy: &ahead, Probability: 0.1, Seed: uint64(d.Target)},
		{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: "UNAVAILABLE", Probability: 0.2, Seed: uint64(d.Target + 1)},
	})
}

func (r *run) acksStalled(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectStallAcks, Latency: emulator.Latency{P50: 2 * time.Second}, Count: 3}, emulator.EndpointStream)
}
