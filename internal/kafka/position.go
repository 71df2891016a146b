package kafka

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The forms of a position that a setting may take besides a time, as bits.
const (
	FormEarliest = 1 << iota
	FormLatest
	FormNow
	FormOffset
)

// errForm is completed by ParsePosition with the allowed forms.
var errForm = errors.New("is not a position")

// ParsePosition reads a position: one of the forms, an RFC 3339 time, or a time
// before now such as -2h. An error names the forms.
func ParsePosition(text string, forms int, now time.Time) (Position, error) {
	p, err := readPosition(strings.TrimSpace(text), forms, now)
	if err != nil {
		return p, fmt.Errorf("%q %w; use %s", text, err, PositionForms(forms))
	}
	return p, nil
}

// PositionForms lists the forms for people.
func PositionForms(forms int) string {
	var words []string
	for _, w := range []struct {
		form int
		word string
	}{{FormEarliest, "earliest"}, {FormLatest, "latest"}, {FormNow, "now"}} {
		if forms&w.form != 0 {
			words = append(words, w.word)
		}
	}
	words = append(words, "an RFC 3339 time (2026-11-22T06:00:00Z)")
	last := "a time before now (-90m, -2h, -7d)"
	if forms&FormOffset != 0 {
		words, last = append(words, last), "an offset (0 or more)"
	}
	return strings.Join(words, ", ") + " or " + last
}

func readPosition(text string, forms int, now time.Time) (Position, error) {
	switch word := strings.ToLower(text); {
	case word == "earliest" && forms&FormEarliest != 0:
		return Position{Kind: Earliest}, nil
	case word == "latest" && forms&FormLatest != 0, word == "now" && forms&FormNow != 0:
		return Position{Kind: Latest}, nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		d, err := parseAgo(ago)
		if err != nil {
			return Position{}, err
		}
		return atTime(now.Add(-d))
	}
	if offset, err := strconv.ParseInt(text, 10, 64); err == nil && offset >= 0 && forms&FormOffset != 0 {
		return Position{Kind: AtOffset, Offset: offset}, nil
	}
	if _, err := parseAgo(text); err == nil {
		return Position{}, fmt.Errorf("lacks a sign: -%s is that long before now", text)
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err == nil {
		if at.After(now) {
			return Position{}, errors.New("is in the future")
		}
		return atTime(at)
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, text); err == nil {
			return Position{}, errors.New("is an incomplete time: date, T, time with seconds, and Z or an offset like +01:00 are all needed")
		}
	}
	return Position{}, errForm
}

// atTime refuses what Kafka's timestamps, milliseconds since 1970, cannot hold.
func atTime(at time.Time) (Position, error) {
	if at.Before(time.UnixMilli(0)) {
		return Position{}, errors.New("is before 1970")
	}
	return Position{Kind: AtTime, Time: at}, nil
}

// parseAgo reads a duration, in which days are allowed.
func parseAgo(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || text[0] == '+' {
		return 0, errForm
	}
	return d, nil
}

// ParsePartitions reads lists like 0,3-5 and returns sorted partitions without
// repetition. No lists are no partitions.
func ParsePartitions(lists []string) ([]int32, error) {
	const most = 100_000
	var ids []int32
	for _, part := range strings.Split(strings.Join(lists, ","), ",") {
		if len(lists) == 0 {
			break
		}
		first, last, many := strings.Cut(strings.TrimSpace(part), "-")
		low, err := strconv.ParseInt(first, 10, 32)
		high := low
		if err == nil && many {
			high, err = strconv.ParseInt(last, 10, 32)
		}
		switch {
		case err != nil || low < 0 || high < 0:
			return nil, fmt.Errorf("--partition %q is not a list of partitions; use the form 0,3-5", part)
		case high < low:
			return nil, fmt.Errorf("--partition %q ends before it begins; use the form 3-5", part)
		case high-low >= most:
			return nil, fmt.Errorf("--partition %q names more than %d partitions; omit the flag for all", part, most)
		}
		for id := low; id <= high; id++ {
			ids = append(ids, int32(id))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
