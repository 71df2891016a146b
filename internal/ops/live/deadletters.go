package live

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// DeadLetters reads the dead-letter topics.
type DeadLetters interface {
	// Newest returns up to max of the newest unresolved dead letters, newest first.
	// complete is false if there may be older ones. It writes nothing.
	Newest(ctx context.Context, max int) (found []DeadLetter, complete bool, err error)
	// DryRun maps those of up to max of the newest dead letters that f selects with the
	// present rules. It writes nothing.
	DryRun(ctx context.Context, max int, f DeadLetterFilter) (DryRun, error)
}

// DeadLetter is one dead letter.
type DeadLetter struct {
	Topic     string    `json:"topic"` // the dead-letter topic
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Source    string    `json:"source"`           // topic/partition/offset of the event
	From      int32     `json:"source_partition"` // -1: unknown
	Events    string    `json:"events"`           // which of the record's events failed: "0", "1,4"
	Code      string    `json:"code"`
	Column    string    `json:"column,omitempty"`
	Meaning   string    `json:"meaning,omitempty"`
	Reason    string    `json:"reason,omitempty"`   // ModeFull only
	Attempts  int       `json:"attempts,omitempty"` // times it was dead-lettered
	FailedAt  time.Time `json:"failed_at,omitzero"`
	Type      string    `json:"type,omitempty"`
	Name      string    `json:"name,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Size      int       `json:"size"`
	Value     string    `json:"value,omitempty"` // ModeFull only

	Content func() string `json:"-"` // returns Value; may be nil
}

// DeadLetterFilter selects dead letters; a zero field selects all.
type DeadLetterFilter struct {
	Code, Column *string
	Partition    *int32    // of the source
	From, To     time.Time // of FailedAt; To is not included
}

// Match reports whether a dead letter is selected.
func (f *DeadLetterFilter) Match(d *DeadLetter) bool { return f.matchGroup(d) && f.matchRest(d) }

func (f *DeadLetterFilter) matchGroup(d *DeadLetter) bool {
	return (f.Code == nil || *f.Code == d.Code) && (f.Column == nil || *f.Column == d.Column)
}

func (f *DeadLetterFilter) matchRest(d *DeadLetter) bool {
	return (f.Partition == nil || *f.Partition == d.From) && (f.From.IsZero() || !d.FailedAt.Before(f.From)) &&
		(f.To.IsZero() || !d.FailedAt.IsZero() && d.FailedAt.Before(f.To))
}

func filterOf(r *http.Request) (f DeadLetterFilter, err error) {
	q := r.URL.Query()
	for name, at := range map[string]**string{"code": &f.Code, "column": &f.Column} {
		if q.Has(name) {
			*at = new(q.Get(name))
		}
	}
	if text := q.Get("partition"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return f, fmt.Errorf("partition %q is not a number", text)
		}
		f.Partition = new(int32(n))
	}
	for name, at := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if text := q.Get(name); text != "" {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return f, fmt.Errorf("%s %q is not a time; write it as 2006-01-02T15:04:05Z", name, text)
			}
		}
	}
	return f, nil
}

// DryRun is the outcome of a redrive as a dry run.
type DryRun struct {
	DeadLetters int             `json:"dead_letters"` // that were selected
	Events      int             `json:"events"`       // of them, that had failed
	Rows        int             `json:"rows"`         // that would be delivered
	Still       []RejectedAgain `json:"still"`        // that would be rejected again
	Dropped     int             `json:"dropped"`      // that would be filtered
	Damaged     int             `json:"damaged"`      // dead letters that cannot be restored
	Read        int             `json:"read"`
	Complete    bool            `json:"complete"` // there are no older ones
}

// RejectedAgain counts events that would be rejected again.
type RejectedAgain struct {
	Code    string `json:"code"`
	Column  string `json:"column,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Events  int    `json:"events"`
}

// deadLetters returns what reads the dead letters of an integration; nil without.
func (p *Page) deadLetters(v *view) DeadLetters {
	if p.cfg.DeadLetters == nil {
		return nil
	}
	return p.cfg.DeadLetters(v.name)
}

const (
	maxDeadLetters     = 100  // shown
	maxRead            = 1000 // grouped
	maxGroups          = 100
	deadLettersTimeout = 20 * time.Second // below the server's write timeout
)

// deadLetterList are the dead letters of an integration that a filter selects, and the
// groups of all those that its time and partition select.
type deadLetterList struct {
	Mode     string            `json:"mode"`
	Read     int               `json:"read"`     // the newest ones
	Complete bool              `json:"complete"` // there are no older ones
	Matched  int               `json:"matched"`
	Groups   []deadLetterGroup `json:"groups"` // most frequent first
	More     int               `json:"more_groups"`
	Shown    []DeadLetter      `json:"dead_letters"` // newest first
}

type deadLetterGroup struct {
	Code    string     `json:"code"`
	Column  string     `json:"column"`
	Meaning string     `json:"meaning,omitempty"`
	Count   int        `json:"count"`
	First   time.Time  `json:"first,omitzero"`
	Last    time.Time  `json:"last,omitzero"`
	Example DeadLetter `json:"example"` // the newest
}

// shown returns a dead letter with what the mode shows of its content.
func (p *Page) shown(d DeadLetter) DeadLetter {
	if p.cfg.Mode != ModeFull {
		d.Reason, d.Value = "", ""
	} else if d.Content != nil {
		d.Value = d.Content()
	}
	return d
}

func (p *Page) listDeadLetters(found []DeadLetter, complete bool, f *DeadLetterFilter) deadLetterList {
	out := deadLetterList{Mode: p.cfg.Mode, Read: len(found), Complete: complete, Groups: []deadLetterGroup{}, Shown: []DeadLetter{}}
	type key struct{ code, column string }
	groups := make(map[key]*deadLetterGroup)
	for _, d := range found {
		if !f.matchRest(&d) {
			continue
		}
		g := groups[key{d.Code, d.Column}]
		if g == nil {
			g = &deadLetterGroup{Code: d.Code, Column: d.Column, Meaning: d.Meaning, Last: d.FailedAt, Example: p.shown(d)}
			groups[key{d.Code, d.Column}] = g
		}
		g.Count++
		if g.First = d.FailedAt; f.matchGroup(&d) {
			if out.Matched++; len(out.Shown) < maxDeadLetters {
				out.Shown = append(out.Shown, p.shown(d))
			}
		}
	}
	for _, g := range groups {
		out.Groups = append(out.Groups, *g)
	}
	slices.SortFunc(out.Groups, func(a, b deadLetterGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
	out.More = max(len(out.Groups)-maxGroups, 0)
	out.Groups = out.Groups[:len(out.Groups)-out.More]
	return out
}

// serveDeadLetters lists the newest dead letters. Parameters: code, column, partition of
// the source, from, to.
func (p *Page) serveDeadLetters(v *view, w http.ResponseWriter, r *http.Request) {
	p.readDeadLetters(v, w, r, func(ctx context.Context, from DeadLetters, f DeadLetterFilter) (any, error) {
		found, complete, err := from.Newest(ctx, maxRead)
		return p.listDeadLetters(found, complete, &f), err
	})
}

func (p *Page) serveDryRun(v *view, w http.ResponseWriter, r *http.Request) {
	p.readDeadLetters(v, w, r, func(ctx context.Context, from DeadLetters, f DeadLetterFilter) (any, error) {
		d, err := from.DryRun(ctx, maxRead, f)
		if d.Still == nil {
			d.Still = []RejectedAgain{} // [] in JSON
		}
		return d, err
	})
}

// readDeadLetters serves one request at a time, since each costs a connection and a
// fetch.
func (p *Page) readDeadLetters(v *view, w http.ResponseWriter, r *http.Request, read func(context.Context, DeadLetters, DeadLetterFilter) (any, error)) {
	from := p.deadLetters(v)
	if from == nil {
		fail(w, http.StatusNotFound, "there is no dead-letter topic: rejects.policy is not dead_letter")
		return
	}
	f, err := filterOf(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	default:
		w.Header().Set("Retry-After", "2")
		fail(w, http.StatusServiceUnavailable, "the dead letters are being read for another request; try again in a moment")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deadLettersTimeout)
	defer cancel()
	defer context.AfterFunc(p.stopped, cancel)()
	answer, err := read(ctx, from, f)
	if err != nil {
		fail(w, http.StatusBadGateway, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, answer)
}
