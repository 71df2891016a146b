package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/datafly/bridge/consumer"
)

// together holds what enabled integrations use that no two of them may.
type together struct {
	groups  map[string]string // group -> integration
	readers map[string]string // source topic -> integration
	written map[string]string // source topic and table -> integration
	rejects map[string]string // dead-letter topic -> integration
	count   int
}

// failure reports what is wrong with a key of an integration.
type failure func(key, value, rule, remedy string)

func newTogether() *together {
	return &together{groups: map[string]string{}, readers: map[string]string{}, written: map[string]string{}, rejects: map[string]string{}}
}

// compare compares an enabled integration with those that were added.
func (t *together) compare(i Integration, fail failure) {
	c := i.Config
	if other := t.groups[c.Kafka.Group]; other != "" {
		fail("kafka.group", c.Kafka.Group, "is the group of the integration "+other+" too, and each would receive only some of the events",
			"leave it out for <deployment>-"+i.Name)
	}
	for _, topic := range c.Kafka.Topics {
		if other := t.written[topic+" "+c.table()]; other != "" {
			fail("kafka.topics", topic, fmt.Sprintf("is read by the integration %s too, into the same table %s.%s.%s: every event would be in the table twice",
				other, c.Zerobus.Catalog, c.Zerobus.Schema, c.Zerobus.Table), "read the topic in one of them only, or set another zerobus.table")
			break
		}
	}
}

func (t *together) add(i Integration) {
	c := i.Config
	t.groups[c.Kafka.Group] = i.Name
	for _, topic := range c.Kafka.Topics {
		t.readers[topic], t.written[topic+" "+c.table()] = i.Name, i.Name
	}
	for _, topic := range c.deadLetterTopics() {
		t.rejects[topic] = i.Name
	}
	t.count++
}

// table identifies the table that the rows go to.
func (c *Config) table() string {
	z := c.Zerobus
	return strings.ToLower(z.WorkspaceURL + " " + z.Catalog + "." + z.Schema + "." + z.Table)
}

// deadLetterTopics returns the dead-letter topics, one for each source topic.
func (c *Config) deadLetterTopics() (topics []string) {
	if c.Rejects.Policy == consumer.PolicyDeadLetter {
		for _, source := range c.Kafka.Topics {
			topics = append(topics, c.Rejects.TopicFor(source))
		}
	}
	return topics
}

// checkRejects compares the dead-letter topics of an integration with the source topics
// of all that were added.
func (t *together) checkRejects(i Integration, fail failure) {
	for _, topic := range i.Config.deadLetterTopics() {
		if other := t.readers[topic]; other != "" && other != i.Name {
			fail("rejects.topic", topic, "is a source topic of the integration "+other+", which would read the dead letters as events",
				"name another topic for dead letters, or take it out of kafka.topics of "+other)
			return
		}
	}
}

// checkTogether compares the enabled integrations with each other.
func (l *loader) checkTogether(all []Integration) {
	t := newTogether()
	all = slices.DeleteFunc(slices.Clone(all), func(i Integration) bool { return !i.Enabled })
	failing := func(i Integration) failure {
		return func(key, value, rule, remedy string) {
			l.problems = append(l.problems, i.problem(key, value, rule, remedy))
		}
	}
	for _, i := range all {
		t.compare(i, failing(i))
		t.add(i)
	}
	for _, i := range all {
		t.checkRejects(i, failing(i))
	}
}

func (i Integration) problem(key, value, rule, remedy string) *Problem {
	from := i.origins[key]
	if from == (origin{}) {
		from = origin{i.Source, i.Line}
	}
	p := from.problem(key, value, rule, remedy)
	p.Integration = i.Name
	return p
}

// Beside returns those of more that can run beside the integrations of d and beside each
// other, in the same order, and the problems of the rest by name: of two that cannot, the
// later one has the problem, and it names both. Those that are not enabled can always.
// The name of one in more is that of none in d.
func (d *Deployment) Beside(more []Integration) (fit []Integration, problems map[string]error) {
	t, problems := newTogether(), map[string]error{}
	for _, i := range d.Integrations {
		if i.Enabled {
			t.add(i)
		}
	}
	for _, i := range more {
		if !i.Enabled {
			fit = append(fit, i)
			continue
		}
		var found []*Problem
		fail := func(key, value, rule, remedy string) { found = append(found, i.problem(key, value, rule, remedy)) }
		if t.count >= maxIntegrations {
			fail("enabled", "", fmt.Sprintf("must not be true for more than %d integrations", maxIntegrations), "disable others, or divide them among several deployments")
		}
		for _, topic := range i.Config.Kafka.Topics {
			if other := t.rejects[topic]; other != "" {
				fail("kafka.topics", topic, "receives the dead letters of the integration "+other+", which would be read as events", "take it out")
				break
			}
		}
		t.checkRejects(i, fail)
		t.compare(i, fail)
		if len(found) > 0 {
			problems[i.Name] = joined(found)
			continue
		}
		t.add(i)
		fit = append(fit, i)
	}
	return fit, problems
}
