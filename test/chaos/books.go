package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// account is a member's own count of events, as /status and its last log line
// have it.
type account struct {
	Read         int64 `json:"read"`
	Delivered    int64 `json:"delivered"`
	DeadLettered int64 `json:"dead_lettered"`
	Skipped      int64 `json:"skipped"`
	Filtered     int64 `json:"filtered"`
	InFlight     int64 `json:"in_flight"`
	Dropped      int64 `json:"dropped"`
	Lost         int64 `json:"lost"` // offsets, not events
	Imbalance    int64 `json:"imbalance"`
}

// wrong says how the books do not balance; "" if they do. It is computed here:
// the member's word for it is not enough.
func (a account) wrong() string {
	sum := a.Delivered + a.DeadLettered + a.Skipped + a.Filtered + a.InFlight + a.Dropped
	if a.Read == sum && a.Imbalance == 0 {
		return ""
	}
	return fmt.Sprintf("read %d is not %d: delivered %d, dead-lettered %d, skipped %d, filtered %d, in flight %d, dropped %d; imbalance %d",
		a.Read, sum, a.Delivered, a.DeadLettered, a.Skipped, a.Filtered, a.InFlight, a.Dropped, a.Imbalance)
}

// watchBooks asks all members for their books, again and again.
func (r *run) watchBooks(ctx context.Context) {
	for hold(ctx, 2*time.Second) {
		r.holdBooks(ctx, false)
	}
}

// holdBooks asks each member once. While nothing is in flight, what it has
// counted as lost must be what it has logged.
func (r *run) holdBooks(ctx context.Context, quiet bool) {
	for _, s := range r.fleet.running() {
		p := r.fleet.process(s)
		var status struct {
			Conservation account `json:"conservation"`
			Partitions   []struct {
				Partition    int32   `json:"partition"`
				Conservation account `json:"conservation"`
			} `json:"partitions"`
		}
		if p == nil || p.status(ctx, &status) != nil {
			continue // it is starting, ending or stopped
		}
		r.entered(p.name+" at /status", status.Conservation)
		if quiet {
			r.losses(p, "at /status", status.Conservation.Lost)
		}
		for _, part := range status.Partitions {
			r.entered(fmt.Sprintf("%s at /status, partition %d", p.name, part.Partition), part.Conservation)
		}
	}
}

func (r *run) entered(where string, a account) {
	if wrong := a.wrong(); wrong != "" {
		r.v.add(ruleBooks, "%s: %s", where, wrong)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.books++
}

// lastWords holds the books of a member's last log line, if line is that.
func (r *run) lastWords(p *process, line []byte) {
	if !bytes.Contains(line, []byte(`"msg":"stopped"`)) {
		return
	}
	var entry struct {
		Events *account `json:"events"`
	}
	if err := json.Unmarshal(line, &entry); err != nil || entry.Events == nil {
		r.v.add(ruleBooks, "the last line of %s has no count of events: %s", p.name, line)
		return
	}
	if entry.Events.InFlight != 0 {
		r.v.add(ruleBooks, "%s stopped with %d events in flight", p.name, entry.Events.InFlight)
	}
	r.losses(p, "in its last line", entry.Events.Lost)
	r.entered(p.name+" when it stopped", *entry.Events)
}

// losses holds the lost offsets that a member counts against those it logged.
func (r *run) losses(p *process, where string, counted int64) {
	if logged := r.ledger.loggedAsLost(p.name); logged != counted && p.log == logKept {
		r.v.add(ruleLossReport, "%s counts %d lost offsets %s, and logged %d of them", p.name, counted, where, logged)
	}
}

// lossMessage is the log line of offsets that a member found to be lost.
const lossMessage = "kafka removed events before they were delivered"

// loss enters the offsets that a log line reports as lost, if line is that.
func (r *run) loss(p *process, line []byte) {
	if !bytes.Contains(line, []byte(lossMessage)) {
		return
	}
	var entry struct {
		Msg       string `json:"msg"`
		Topic     string `json:"topic"`
		Partition *int32 `json:"partition"`
		First     *int64 `json:"first_offset"`
		Last      *int64 `json:"last_offset"`
	}
	if json.Unmarshal(line, &entry) != nil || entry.Msg != lossMessage {
		return
	}
	if entry.Partition == nil || entry.First == nil || entry.Last == nil || *entry.Last < *entry.First {
		r.v.add(ruleLossReport, "a line of %s reports a loss without its range: %s", p.name, line)
		return
	}
	book := *entry.Partition
	if entry.Topic == recreated {
		book += recreatedBooks + 10*r.recreate.last()
	}
	r.ledger.lossReported(p.name, book, *entry.First, *entry.Last+1, time.Now())
}

// status asks a member what it is doing.
func (p *process) status(ctx context.Context, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/status", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := browser.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/status of %s: HTTP %d", p.name, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

var browser = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
