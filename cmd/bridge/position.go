package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/kafka"
)

// The forms of a position that a flag may take besides a time.
const (
	formEarliest = 1 << iota
	formLatest
	formNow
	formOffset
)

// errForm is completed by parsePosition with the forms the flag takes.
var errForm = errors.New("is not a position")

// parsePosition reads the position of a flag: one of the forms, an RFC 3339 time, or
// a time before now such as -2h.
func parsePosition(text string, forms int, now time.Time) (kafka.Position, error) {
	p, err := readPosition(strings.TrimSpace(text), forms, now)
	if err != nil {
		return p, fmt.Errorf("%q %w; use %s", text, err, positionForms(forms))
	}
	return p, nil
}

func positionForms(forms int) string {
	var words []string
	for _, w := range []struct {
		form int
		word string
	}{{formEarliest, "earliest"}, {formLatest, "latest"}, {formNow, "now"}} {
		if forms&w.form != 0 {
			words = append(words, w.word)
		}
	}
	words = append(words, "an RFC 3339 time (2026-11-22T06:00:00Z)")
	last := "a time before now (-90m, -2h, -7d)"
	if forms&formOffset != 0 {
		words, last = append(words, last), "an offset (0 or more)"
	}
	return strings.Join(words, ", ") + " or " + last
}

func readPosition(text string, forms int, now time.Time) (kafka.Position, error) {
	switch word := strings.ToLower(text); {
	case word == "earliest" && forms&formEarliest != 0:
		return kafka.Position{Kind: kafka.Earliest}, nil
	case word == "latest" && forms&formLatest != 0, word == "now" && forms&formNow != 0:
		return kafka.Position{Kind: kafka.Latest}, nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		d, err := parseAgo(ago)
		if err != nil {
			return kafka.Position{}, err
		}
		return atTime(now.Add(-d))
	}
	if offset, err := strconv.ParseInt(text, 10, 64); err == nil && offset >= 0 && forms&formOffset != 0 {
		return kafka.Position{Kind: kafka.AtOffset, Offset: offset}, nil
	}
	if _, err := parseAgo(text); err == nil {
		return kafka.Position{}, fmt.Errorf("lacks a sign: -%s is that long before now", text)
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err == nil {
		if at.After(now) {
			return kafka.Position{}, errors.New("is in the future")
		}
		return atTime(at)
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, text); err == nil {
			return kafka.Position{}, errors.New("is an incomplete time: date, T, time with seconds, and Z or an offset like +01:00 are all needed")
		}
	}
	return kafka.Position{}, errForm
}

// atTime refuses what Kafka's timestamps, milliseconds since 1970, cannot hold.
func atTime(at time.Time) (kafka.Position, error) {
	if at.Before(time.UnixMilli(0)) {
		return kafka.Position{}, errors.New("is before 1970")
	}
	return kafka.Position{Kind: kafka.AtTime, Time: at}, nil
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
