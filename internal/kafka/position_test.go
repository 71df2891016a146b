package kafka

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestPositionsAreRead(t *testing.T) {
	const all = FormEarliest | FormLatest | FormNow | FormOffset
	at := func(h, m int) Position {
		return Position{Kind: AtTime, Time: time.Date(2026, 11, 22, h, m, 0, 0, time.UTC)}
	}
	for _, tc := range []struct {
		text string
		want Position
	}{
		{"earliest", Position{Kind: Earliest}},
		{"LATEST", Position{Kind: Latest}},
		{"now", Position{Kind: Latest}},
		{"0", Position{Kind: AtOffset}},
		{"9223372036854775807", Position{Kind: AtOffset, Offset: 1<<63 - 1}},
		{"-2h", at(10, 0)},
		{"-1h30m", at(10, 30)},
		{"2026-11-22T06:00:00Z", at(6, 0)},
		{"2026-11-22T06:00:00+02:00", at(4, 0)},
		{" 2026-11-22T06:00:00Z ", at(6, 0)},
		{"-7d", Position{Kind: AtTime, Time: noon.AddDate(0, 0, -7)}},
	} {
		got, err := ParsePosition(tc.text, all, noon)
		if err != nil || got.Kind != tc.want.Kind || got.Offset != tc.want.Offset || !got.Time.Equal(tc.want.Time) {
			t.Errorf("%q: got %v, %v; want %v", tc.text, got, err, tc.want)
		}
	}
}

func TestPositionsAreRefusedWithTheForms(t *testing.T) {
	for _, tc := range []struct {
		text  string
		forms int
		want  []string
	}{
		{"yesterday", FormEarliest | FormLatest | FormOffset, []string{`"yesterday" is not a position`, "earliest, latest, an RFC 3339 time", "or an offset"}},
		{"", FormNow, []string{"use now, an RFC 3339 time (2026-11-22T06:00:00Z) or a time before now"}},
		{"earliest", FormNow, []string{"is not a position"}},
		{"latest", FormEarliest, []string{"is not a position"}},
		{"12", FormEarliest, []string{"is not a position"}},
		{"2h", FormOffset, []string{"-2h is that long before now"}},
		{"7d", FormOffset, []string{"-7d is that long before now"}},
		{"-5", FormOffset, []string{"is not a position"}},
		{"--2h", FormOffset, []string{"is not a position"}},
		{"-+2h", FormOffset, []string{"is not a position"}},
		{"2026-11-22", FormOffset, []string{"is an incomplete time"}},
		{"2026-11-22T06:00:00", FormOffset, []string{"Z or an offset like +01:00"}},
		{"2026-11-22T12:00:01Z", FormNow, []string{"is in the future"}},
		{"1969-12-31T23:59:59Z", FormNow, []string{"is before 1970"}},
		{"-65535d", FormNow, []string{"is before 1970"}},
	} {
		got, err := ParsePosition(tc.text, tc.forms, noon)
		if err == nil {
			t.Errorf("%q: got %v, want an error", tc.text, got)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %q, want %q in it", tc.text, err, want)
			}
		}
	}
}

func TestPartitionsAreRead(t *testing.T) {
	for _, tc := range []struct {
		given []string
		want  []int32
		err   string
	}{
		{nil, nil, ""},
		{[]string{"0"}, []int32{0}, ""},
		{[]string{"3-5,0", "4"}, []int32{0, 3, 4, 5}, ""},
		{[]string{"5-3"}, nil, "ends before it begins"},
		{[]string{"a"}, nil, "0,3-5"},
		{[]string{"1,"}, nil, "0,3-5"},
		{[]string{"-1"}, nil, "0,3-5"},
		{[]string{"0-2147483647"}, nil, "100000"},
	} {
		got, err := ParsePartitions(tc.given)
		if tc.err == "" {
			if err != nil || len(got) != len(tc.want) {
				t.Errorf("%q: got %v, %v; want %v", tc.given, got, err, tc.want)
				continue
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("%q: got %v, want %v", tc.given, got, tc.want)
				}
			}
		} else if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: got %v, %v; want %q in the error", tc.given, got, err, tc.err)
		}
	}
}

func FuzzPosition(f *testing.F) {
	for _, seed := range []string{"earliest", "-2h", "-7d", "2026-11-22T06:00:00Z", "42", "", "-", "-9999999h", "2h", "1677-09-21T00:12:43Z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text, FormEarliest|FormLatest|FormNow|FormOffset, noon)
		if err != nil {
			return
		}
		switch p.Kind {
		case AtOffset:
			if p.Offset < 0 {
				t.Errorf("%q became the offset %d", text, p.Offset)
			}
		case AtTime:
			if p.Time.After(noon) || p.Time.UnixMilli() < 0 {
				t.Errorf("%q became the time %v", text, p.Time)
			}
		}
	})
}
