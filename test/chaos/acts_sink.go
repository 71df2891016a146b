package main

import (
	"errors"
	"slices"
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

func (r *run) acksStalled(d *doing) error {
	return r.scripted(d, emulator.Fault{Effect: emulator.EffectStallAcks, Latency: emulator.Latency{P50: 2 * time.Second}, Count: 3}, emulator.EndpointStream)
}
