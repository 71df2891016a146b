package config

import (
	"slices"
	"strings"
)

// Actions of a reload on one integration.
const (
	ActionStart   = "start"
	ActionStop    = "stop"
	ActionReplace = "replace" // drains, then starts
	ActionLive    = "live"    // a change that needs neither
	ActionNothing = "nothing"
)

// Difference is what a reload does that changes one deployment into another.
type Difference struct {
	Process      ProcessChange `json:"process"`
	Integrations []Change      `json:"integrations"` // in the order of their names
}

// ProcessChange lists keys of the process that differ.
type ProcessChange struct {
	Live    []string `json:"live"`
	Restart []string `json:"restart"`
}

// Change is what a reload does to one integration, and the keys that differ.
type Change struct {
	Integration string   `json:"integration"`
	Action      string   `json:"action"`
	Keys        []string `json:"keys"`
}

// Compare returns what a reload does in a bridge that runs was, when its configuration
// becomes next. Files that keys name are not compared.
func Compare(was, next *Deployment) Difference {
	d := Difference{Integrations: []Change{}, Process: ProcessChange{Live: []string{}, Restart: []string{}}}
	_, live, waiting := was.Base.Follow(next.Base)
	d.Process.Live = append(d.Process.Live, keysOfScope(live, true)...)
	d.Process.Restart = append(d.Process.Restart, keysOfScope(waiting, true)...)
	old := make(map[string]Integration)
	for _, i := range was.Integrations {
		old[i.Name] = i
	}
	for _, i := range next.Integrations {
		o, existed := old[i.Name]
		delete(old, i.Name)
		d.Integrations = append(d.Integrations, change(o, i, existed))
	}
	for _, o := range old {
		c := Change{Integration: o.Name, Action: ActionStop, Keys: []string{}}
		if !o.Enabled {
			c.Action = ActionNothing
		}
		d.Integrations = append(d.Integrations, c)
	}
	slices.SortFunc(d.Integrations, func(a, b Change) int { return strings.Compare(a.Integration, b.Integration) })
	return d
}

// change compares one integration, by the rules of the supervisors in internal/integrations.
func change(was, next Integration, existed bool) Change {
	c := Change{Integration: next.Name, Action: ActionNothing, Keys: []string{}}
	if !existed {
		if next.Enabled {
			c.Action = ActionStart
		}
		return c
	}
	_, live, other := was.Config.Follow(next.Config)
	live, other = keysOfScope(live, false), keysOfScope(other, false)
	if was.Enabled != next.Enabled {
		c.Keys = append(c.Keys, "enabled")
	}
	c.Keys = append(append(c.Keys, live...), other...)
	switch {
	case !was.Enabled && !next.Enabled:
	case !next.Enabled:
		c.Action = ActionStop
	case !was.Enabled:
		c.Action = ActionStart
	case len(other) > 0:
		c.Action = ActionReplace
	case len(live) > 0:
		c.Action = ActionLive
	}
	return c
}

// keysOfScope returns those of the keys that belong to the process, or to integrations.
func keysOfScope(keys []string, process bool) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return OfProcess(key) != process })
}
