package live_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops/live"
)

// pile has dead letters of two columns and one without, newest first.
type pile struct{ asked *live.DeadLetterFilter }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (pile) Newest(_ context.Context, most int) ([]live.DeadLetter, bool, error) {
	var all []live.DeadLetter
	for n := range min(300, most) {
		d := live.DeadLetter{Code: "bad_value", Column: "price", From: int32(n % 3), FailedAt: noon.Add(-time.Duration(n) * time.Minute), MessageID: fmt.Sprint(n), Content: func() string { return "CONTENT" }}
		switch {
		case n%10 == 9:
			d.Code, d.Column = "not_json", ""
		case n%10 == 8:
			d.Column = "user_id"
		}
		all = append(all, d)
	}
	return all, false, nil
}

func (p pile) DryRun(_ context.Context, _ int, f live.DeadLetterFilter) (live.DryRun, error) {
	*p.asked = f
	return live.DryRun{}, nil
}

type list struct {
	Read, Matched int
	Complete      bool
	Groups        []struct {
		Code, Column string
		Count        int
		First, Last  time.Time
		Example      live.DeadLetter
	}
	Shown []live.DeadLetter `json:"dead_letters"`
}

func TestDeadLettersAreGrouped(t *testing.T) {
	var asked live.DeadLetterFilter
	s := start(t, live.Config{Mode: live.ModeFull, DeadLetters: func(string) live.DeadLetters { return pile{&asked} }}, healthy)
	get := func(query string) list {
		return parsed[list](t, s.want(200, http.MethodGet, "/live/dead-letters?"+query))
	}
	all := get("")
	if all.Read != 300 || all.Complete || all.Matched != 300 || len(all.Shown) != 100 || all.Shown[0].Value != "CONTENT" || len(all.Groups) != 3 {
		t.Fatalf("got %d of %d, %d shown, in %d groups; want 300, 100 shown, in 3", all.Matched, all.Read, len(all.Shown), len(all.Groups))
	}
	if g := all.Groups[0]; g.Code != "bad_value" || g.Column != "price" || g.Count != 240 || !g.Last.Equal(noon) || !g.First.Equal(noon.Add(-297*time.Minute)) || g.Example.MessageID != "0" || g.Example.Value != "CONTENT" {
		t.Errorf("got %+v first, want 240 of price, from the oldest to the newest, which is the example", g)
	}
	hour := url.QueryEscape(noon.Add(-time.Hour).Format(time.RFC3339))
	for query, want := range map[string][2]int{ // matched, groups
		"code=not_json": {30, 3}, "code=bad_value&column=user_id": {30, 3}, "column=": {30, 3}, "code=none": {0, 3},
		"partition=1": {100, 3}, "partition=1&code=not_json": {10, 3}, "from=" + hour: {61, 3}, "to=" + hour: {239, 3}, "partition=9": {0, 0},
	} {
		if got := get(query); got.Matched != want[0] || len(got.Groups) != want[1] {
			t.Errorf("%s: got %d in %d groups, want %v", query, got.Matched, len(got.Groups), want)
		}
	}
	for _, query := range []string{"partition=x", "from=yesterday", "to=1"} {
		s.want(400, http.MethodGet, "/live/dead-letters?"+query)
	}
	s.want(200, http.MethodPost, "/live/dead-letters/dry-run?code=not_json&column=&partition=2&from="+hour)
	if asked.Code == nil || *asked.Code != "not_json" || asked.Column == nil || *asked.Column != "" || asked.Partition == nil || *asked.Partition != 2 || !asked.From.Equal(noon.Add(-time.Hour)) {
		t.Errorf("got the dry run with %+v, want the filter", asked)
	}

	hidden := start(t, live.Config{Mode: live.ModeMetadata, DeadLetters: func(string) live.DeadLetters { return pile{&asked} }}, healthy)
	got := parsed[list](t, hidden.want(200, http.MethodGet, "/live/dead-letters"))
	if got.Shown[0].Value != "" || got.Groups[0].Example.Value != "" {
		t.Error("got content in mode metadata")
	}
}
