package ops

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus"
)

// States of a Verdict, as people read them.
const (
	VerdictDelivering    = "delivering"
	VerdictIdle          = "idle"           // nothing to deliver
	VerdictCatchingUp    = "catching up"    // far behind, and the lag shrinks
	VerdictFallingBehind = "falling behind" // the lag grows, or events wait for too long
	VerdictBlocked       = "blocked"        // nothing is delivered until somebody acts or a service answers
	VerdictFailed        = "failed"         // ended with an error; starts again later
	VerdictDisabled      = "disabled"
	VerdictStarting      = "starting"
	VerdictStopping      = "stopping"
	VerdictShadowed      = "shadowed" // another description of the same name is in force
	VerdictNotAnswering  = "not answering"
)

// Levels of a Verdict.
const (
	LevelOK      = "ok"
	LevelWarning = "warning"
	LevelError   = "error"
	LevelOff     = "off" // nothing is expected of it now
)

// Verdict is what an operator has to know of an integration first.
type Verdict struct {
	State  string    `json:"state"` // one of the Verdict constants
	Level  string    `json:"level"` // one of the Level constants
	Text   string    `json:"text"`
	Remedy string    `json:"remedy,omitempty"`
	Since  time.Time `json:"since,omitzero"` // when this state and level began; zero: unknown
}

// Thresholds of the verdict.
const (
	// patience is how long lag may grow, events may wait, delivery may stand or a start
	// may take.
	patience       = time.Minute
	patienceSteps  = int(patience / historyStep)
	rejectWindow   = 5 * time.Minute
	maxRejectShare = 0.01
	keptRejecting  = 0.8 // of maxRejectShare: a verdict does not change back and forth at the limit
	allRejected    = 10  // rejected events without another one that are more than chance
	// farBehind is the lag above which it has to shrink, and farSeconds what that is at
	// the present rate.
	farBehind, farSeconds = 1000, 10
)

// Judge returns the verdict on an integration at one moment, from its status and its
// history. It depends on nothing else.
func Judge(now time.Time, i *IntegrationStatus) Verdict { return judge(now, i, maxRejectShare) }

const rejectRemedy = "see the dead letters: they have the reasons"

func judge(now time.Time, i *IntegrationStatus, maxRejects float64) Verdict {
	switch i.State {
	case StateDisabled:
		return Verdict{State: VerdictDisabled, Level: LevelOff, Text: "it is disabled"}
	case StateDraining, StateStopped:
		return Verdict{State: VerdictStopping, Level: LevelOff, Text: "it is " + i.State}
	case StateFailed:
		v := Verdict{State: VerdictFailed, Level: LevelError, Text: i.Reason, Remedy: "correct what the reason names; the integration starts again automatically"}
		if wait := i.NextTry.Sub(now); wait > 0 {
			v.Text += "; next try in " + age(wait.Round(time.Second))
		}
		return v
	}
	h := i.History
	if h == nil {
		h = &History{}
	}
	if i.LiveReason != "" {
		return Verdict{State: VerdictBlocked, Level: LevelError, Text: i.LiveReason, Remedy: "restart the process"}
	}
	if !i.Ready && len(i.NotReady) > 0 {
		return i.standing(h)
	}
	lag, _ := i.Lag()
	rate := max(mean(h.Outcomes[max(len(h.Outcomes)-patienceSteps, 0):]), 0)
	behind := fmt.Sprintf("%s behind", counted(lag, "event"))
	switch far := lag > farBehind && float32(lag) > farSeconds*rate; {
	case lag > 0 && stands(h):
		v := Verdict{State: VerdictBlocked, Level: LevelError, Text: "none was delivered for a minute: " + counted(lag, "event") + " " + waits(lag), Remedy: "see the partitions and the log of the bridge"}
		if i.Sink.Reason != "" {
			v.Text, v.Remedy = v.Text+"; "+i.Sink.Reason, cmp.Or(i.Sink.Remedy, v.Remedy)
		}
		return v
	case i.Sink.Name == zerobus.Retrying:
		return Verdict{State: VerdictFallingBehind, Level: LevelWarning, Text: "the table's service does not accept rows now, and the bridge retries: " + i.Sink.Reason,
			Remedy: cmp.Or(i.Sink.Remedy, "wait; delivery resumes automatically"), Since: i.Sink.Since}
	case i.Oldest() > patience:
		return Verdict{State: VerdictFallingBehind, Level: LevelWarning, Text: "the oldest unacknowledged event waits for " + age(i.Oldest().Round(time.Second)),
			Remedy: "see the partitions: one may be slow or refused"}
	case grows(h, rate), far && len(h.Lag) > patienceSteps && !shrinks(h):
		text := behind + ", and the lag does not shrink"
		if grows(h, rate) {
			text = behind + ", and the lag has grown for a minute"
		}
		return Verdict{State: VerdictFallingBehind, Level: LevelWarning, Text: text, Remedy: "add members up to the number of partitions, or see the acknowledgement times of the table"}
	}
	if share, n := h.RejectShare(); share > maxRejects {
		v := Verdict{State: VerdictDelivering, Level: LevelWarning, Text: fmt.Sprintf("%.1f %% of the events of the last 5 minutes were rejected (%s)", 100*share, counted(n, "event")),
			Remedy: rejectRemedy}
		if share == 1 && n >= allRejected { // nothing gets into the table
			v.State, v.Level, v.Text = VerdictBlocked, LevelError, fmt.Sprintf("all events of the last 5 minutes were rejected (%s)", counted(n, "event"))
		}
		return v
	}
	switch {
	case len(i.Partitions) == 0:
		return Verdict{State: VerdictIdle, Level: LevelOK, Text: "no partition is assigned to this member; other members have all of them"}
	case lag > farBehind && float32(lag) > farSeconds*rate:
		return Verdict{State: VerdictCatchingUp, Level: LevelOK, Text: behind + ", and the lag shrinks"}
	case lag == 0 && rate == 0:
		return Verdict{State: VerdictIdle, Level: LevelOK, Text: "everything in the topics is delivered; no event arrives"}
	case lag == 0:
		return Verdict{State: VerdictDelivering, Level: LevelOK, Text: "everything in the topics is delivered"}
	}
	return Verdict{State: VerdictDelivering, Level: LevelOK, Text: "keeping up"}
}

// startReasons are codes of what passes with a start or a rebalance.
var startReasons = []string{StateStarting, "not_joined"}

// standing returns the verdict on an integration that has a reason not to deliver.
func (i *IntegrationStatus) standing(h *History) Verdict {
	r := i.NotReady[0]
	v := Verdict{State: VerdictBlocked, Level: LevelError, Text: r.Text, Remedy: r.Remedy}
	if more := len(slices.Compact(slices.Clone(i.NotReady))) - 1; more > 0 {
		v.Text += fmt.Sprintf("; and %s", counted(int64(more), "other reason"))
	}
	switch {
	case i.Sink.Name == zerobus.Blocked:
		v.Since = i.Sink.Since
	case i.State == StateStarting || slices.Contains(startReasons, r.Code):
		v.State = VerdictStarting
		if len(h.Rows) < patienceSteps || highest(newest(h.Outcomes, patienceSteps)) > 0 {
			v.Level = LevelOff
		}
	}
	return v
}

// newest returns the last n values; nil if there are fewer.
func newest(values []float32, n int) []float32 {
	if len(values) < n {
		return nil
	}
	return values[len(values)-n:]
}

// stands reports whether events wait and none had an outcome for a minute.
func stands(h *History) bool {
	lag, outcomes := newest(h.Lag, patienceSteps), newest(h.Outcomes, patienceSteps)
	return len(lag) > 0 && slices.Min(lag) > 0 && highest(outcomes) == 0
}

// thirds returns the least lag in each third of the last minute; ok is false while a
// value is unknown.
func thirds(h *History) (least [3]float32, ok bool) {
	lag := newest(h.Lag, patienceSteps)
	if len(lag) == 0 || slices.Min(lag) < 0 {
		return least, false
	}
	const n = patienceSteps / 3
	for i := range least {
		least[i] = slices.Min(lag[i*n : (i+1)*n])
	}
	return least, true
}

// grows reports whether the lag has grown for a minute by more than the events of a
// second at the present rate, which is noise.
func grows(h *History, rate float32) bool {
	t, ok := thirds(h)
	return ok && t[0] < t[1] && t[1] < t[2] && t[2]-t[0] > max(rate, 1)
}

// shrinks reports whether the lag has shrunk in the last minute.
func shrinks(h *History) bool {
	t, ok := thirds(h)
	return ok && t[2] < t[0]
}

// RejectShare returns which share of the events of the last 5 minutes was rejected, from
// 0 to 1, and how many these were.
func (h *History) RejectShare() (share float64, events int64) {
	if h == nil || h.StepSeconds == 0 {
		return 0, 0
	}
	n := int(rejectWindow.Seconds()) / h.StepSeconds
	tail := func(values []float32) float64 {
		return float64(max(sum(values[max(len(values)-n, 0):]), 0)) * float64(h.StepSeconds)
	}
	rejected, all := tail(h.Rejected), tail(h.Outcomes)
	if all == 0 {
		return 0, 0
	}
	return rejected / all, int64(rejected + 0.5)
}

// LagChange returns by how many events per second the lag has grown in the last minute,
// below 0 if it shrank; ok is false while unknown.
func (h *History) LagChange() (perSecond float64, ok bool) {
	if h == nil || h.StepSeconds == 0 {
		return 0, false
	}
	lag := newest(h.Lag, int(patience.Seconds())/h.StepSeconds+1)
	if len(lag) == 0 || lag[0] < 0 || lag[len(lag)-1] < 0 {
		return 0, false
	}
	return float64(lag[len(lag)-1]-lag[0]) / patience.Seconds(), true
}

// levels are the levels and states in the order in which one member's verdict stands for
// the group.
var (
	levels = []string{LevelError, LevelWarning, LevelOK, LevelOff}
	states = []string{VerdictCatchingUp, VerdictDelivering, VerdictIdle}
)

// JoinVerdicts returns the verdict on a group from those of its members, of which
// unanswered did not answer. Nothing is known without any.
func JoinVerdicts(members []Verdict, unanswered int) Verdict {
	rank := func(v Verdict) int { return slices.Index(levels, v.Level)*len(states) + slices.Index(states, v.State) }
	var worst Verdict
	for n, v := range members {
		if n == 0 || rank(v) < rank(worst) {
			worst = v
		}
	}
	const remedy = "see the log of that process; its partitions are assigned to others after kafka.session_timeout"
	switch {
	case len(members) == 0:
		return Verdict{State: VerdictNotAnswering, Level: LevelError, Text: "no member answers", Remedy: "see whether the bridge runs and ops.peers names its members"}
	case unanswered > 0 && worst.Level != LevelError:
		return Verdict{State: VerdictNotAnswering, Level: LevelWarning, Text: fmt.Sprintf("%d of %d members do not answer", unanswered, len(members)+unanswered), Remedy: remedy}
	}
	if worst.State == VerdictIdle && len(members) > 1 {
		worst.Text = "everything in the topics is delivered; no event arrives" // also if a member has no partition
	}
	return worst
}

func waits(n int64) string {
	if n == 1 {
		return "waits"
	}
	return "wait"
}

// counted prints a number of things.
func counted(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text + " " + thing
}

// SecondsBehind returns the age of the oldest unacknowledged event by its timestamp.
func (i *IntegrationStatus) SecondsBehind() float64 { return consumer.Behind(i.Partitions).Seconds() }
