package main

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// endpoints returns those that take rows, by the transports of the run.
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

// inject has the emulator fail in several ways for the fault's length.
func (r *run) inject(f fault, faults ...emulator.Fault) error {
	var err error
	for _, e := range faults {
		added, aerr := r.rig.workspace.AddFault(e)
		if aerr != nil {
			err = errors.Join(err, aerr)
			continue
		}
		defer r.rig.workspace.RemoveFault(added.ID)
	}
	r.last(f)
	return err
}

// scripted has the emulator fail in one way at the given endpoints, or at all that
// take rows.
func scripted(e emulator.Fault, at ...string) action {
	return func(r *run, f fault) error { return r.injectAt(f, e, at...) }
}

func (r *run) injectAt(f fault, e emulator.Fault, at ...string) error {
	if at == nil {
		at = r.endpoints()
	}
	var faults []emulator.Fault
	for _, endpoint := range at {
		e.Endpoint, e.Seed = endpoint, uint64(f.Target)
		faults = append(faults, e)
	}
	return r.inject(f, faults...)
}

var closeWindow = emulator.Duration(500 * time.Millisecond)

// sinkStatus answers requests with a status. What blocks a member for half a minute
// affects only some: count of them, 0 for half of all.
func sinkStatus(status, count int) action {
	return func(r *run, f fault) error {
		e := emulator.Fault{Effect: emulator.EffectStatus, Status: status, Count: count}
		at := r.endpoints()
		if count == 0 {
			e.Probability = 0.5
		} else {
			at = at[f.Target%len(at):][:1]
		}
		if status == http.StatusTooManyRequests {
			e.RetryAfter = 1
		}
		return r.injectAt(f, e, at...)
	}
}

// answerGarbled keeps rows and answers 200 with half an object; on streams, with a
// response of an unknown kind.
func answerGarbled(r *run, f fault) error {
	half := `{"records_ing`
	var faults []emulator.Fault
	for _, endpoint := range r.endpoints() {
		e := emulator.Fault{Endpoint: endpoint, Effect: emulator.EffectStatus, Status: 200, Body: &half, Keep: true, Probability: 0.3, Seed: uint64(f.Target)}
		if endpoint == emulator.EndpointStream {
			e = emulator.Fault{Endpoint: endpoint, Effect: emulator.EffectUnknown, Probability: 0.2}
		}
		faults = append(faults, e)
	}
	return r.inject(f, faults...)
}

// htmlPage is how proxies and gateways refuse.
const htmlPage = "<html><head><title>Error</title></head><body><h1>Error</h1></body></html>"

// An answer that is not the service's has its connection closed, which another
// request may be using by then: answerLies and proxyRefuses lose acknowledgements.

// answerLies keeps no row and answers with a 2xx that confirms none, each request in
// one of many ways or, half of the times, as usual.
func answerLies(r *run, f fault) error {
	empty, object, whole, within := "", `{}`, `{"records_ingested":1}`, 5
	var faults []emulator.Fault
	add := func(endpoint string, e emulator.Fault) {
		e.Endpoint, e.Effect, e.Probability, e.Seed = endpoint, emulator.EffectStatus, 0.06, uint64(f.Target+len(faults))
		faults = append(faults, e)
	}
	for _, endpoint := range slices.DeleteFunc(r.endpoints(), func(e string) bool { return e == emulator.EndpointStream }) {
		for _, status := range []int{201, 202, 204, 206, 207} {
			e := emulator.Fault{Status: status, Body: &object}
			if status == http.StatusNoContent {
				e.Body = &empty
			}
			add(endpoint, e)
		}
		add(endpoint, emulator.Fault{Status: 200, Body: &whole, CutAfter: &within})
		bodies := []string{`{"error_code":"PERMISSION_DENIED","message":"no"}`, `{"error":"access_denied"}`, "", "  \n", `{"records_ing`, `[]`, `null`, htmlPage}
		if endpoint == emulator.EndpointIngest { // its answer has the number of rows
			bodies = append(bodies, `{}`, `{"records_ingested":null}`, `{"records_ingested":0}`, `{"records_ingested":401}`)
		}
		for _, body := range bodies {
			add(endpoint, emulator.Fault{Status: 200, Body: &body})
		}
	}
	return r.inject(f, faults...)
}

// proxyRefuses answers good rows with refusals that are not the service's: its JSON
// is missing, and over gRPC its error code and detail.
func proxyRefuses(r *run, f fault) error {
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
		faults[i].Effect, faults[i].Seed = emulator.EffectStatus, uint64(f.Target+i)
	}
	return r.inject(f, faults...)
}

// refusedOnce has the service refuse some good rows, in its own words, until each
// has come alone, and then once. A client that rejects a row on its first refusal
// rejects good ones.
func refusedOnce(r *run, f fault) error {
	r.refusing.Lock()
	defer r.refusing.Unlock()
	var mu sync.Mutex
	alone := map[uint32]bool{} // events whose row came alone, and was refused; guarded by mu
	r.rig.workspace.OnIngest(func(req emulator.IngestRequest) *emulator.Fault {
		for _, text := range req.Rows {
			row, err := r.gen.read(text)
			if err != nil || r.gen.random(row.Number)%128 != uint64(f.Target)%128 {
				continue
			}
			mu.Lock()
			again := alone[row.Number]
			alone[row.Number] = again || len(req.Rows) == 1
			mu.Unlock()
			if !again {
				return &emulator.Fault{Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{MessageIDs: []string{r.gen.id(row.Number)}}}
			}
		}
		return nil
	})
	defer r.rig.workspace.OnIngest(nil)
	r.last(f)
	return nil
}

func tokensRevoked(r *run, _ fault) error {
	r.rig.workspace.RevokeTokens()
	return nil
}

func tokensDown(r *run, f fault) error {
	r.rig.workspace.RevokeTokens()
	return r.injectAt(f, emulator.Fault{Effect: emulator.EffectStatus, Status: 503}, emulator.EndpointToken)
}

func clockJump(r *run, _ fault) error {
	r.rig.workspace.AgeTokens(59 * time.Minute)
	return nil
}

func secretRotated(r *run, _ fault) error {
	secret := r.rig.secrets.fresh()
	r.rig.workspace.RotateSecret(secret)
	if err := r.rig.secrets.write(secret); err != nil {
		return err
	}
	r.rig.workspace.RevokeTokens() // or the new one would not be requested within the run
	return nil
}

func schemaChanged(r *run, f fault) error {
	r.columns.Lock()
	defer r.columns.Unlock()
	if err := r.rig.table.DropColumn(changingColumn); err != nil {
		return err
	}
	r.ledger.ColumnsChanged()
	r.last(f)
	err := r.rig.table.AddColumn(emulator.Column{Name: changingColumn, Type: "STRING"})
	r.ledger.ColumnsChanged()
	return err
}

// acksAhead acknowledges what was never sent, on open streams and on those that are
// not confirmed yet, while other messages under way are not kept.
func acksAhead(r *run, f fault) error {
	ahead, seed := int64(1000), uint64(f.Target)
	return r.inject(f,
		emulator.Fault{Endpoint: emulator.EndpointCreate, Effect: emulator.EffectAck, AckOffset: &ahead, Probability: 0.3, Seed: seed},
		emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectAck, AckBy: &ahead, Probability: 0.1, Seed: seed},
		emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: "UNAVAILABLE", Probability: 0.2, Seed: seed + 1})
}
