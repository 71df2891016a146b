package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever adds a key has to say what a change of it does to a running bridge.
func TestEveryKeyIsLiveOrAfterRestart(t *testing.T) {
	said := map[string]int{}
	for _, path := range live {
		said[path]++
	}
	for _, s := range liveSecrets {
		said[s.key]++
		said[s.key+"_file"]++
		for _, path := range s.companions {
			if !slices.Contains(afterRestart, path) {
				t.Errorf("%s goes with %s, which is not among those that wait for a restart", s.key, path)
			}
		}
	}
	for _, path := range afterRestart {
		said[path]++
	}
	for _, f := range keys {
		if said[f.path] != 1 {
			t.Errorf("%s: got %d places in reload.go, want one: live, liveSecrets or afterRestart", f.path, said[f.path])
		}
		delete(said, f.path)
	}
	for path := range said {
		t.Errorf("%s is in reload.go and is no key", path)
	}
}

// complete is a configuration with every secret set.
func complete() *Config {
	c := Defaults()
	c.Kafka.Topics = []string{"events"}
	c.Kafka.SASL.Mechanism, c.Kafka.SASL.Username, c.Kafka.SASL.Password = "plain", "bridge", "p1"
	c.Kafka.SASL.OAuth.ClientSecret = "o1"
	c.Zerobus.ClientID, c.Zerobus.ClientSecret = "id", "s1"
	c.Ops.TokenFile = "/token"
	return &c
}

// Each key on its own: what differs is taken or waits, and nothing else moves.
func TestFollowEachKey(t *testing.T) {
	for _, f := range keys {
		if f.secret() || strings.HasSuffix(f.path, "_file") {
			continue // below
		}
		c, next := complete(), complete()
		alter(f, next)
		now, taken, waiting := c.Follow(next)
		if slices.Contains(live, f.path) {
			if !slices.Equal(taken, []string{f.path}) || len(waiting) != 0 || !same(f, now, next) {
				t.Errorf("%s: got %v taken, %v waiting, want it taken", f.path, taken, waiting)
			}
			continue
		}
		if !slices.Equal(waiting, []string{f.path}) || len(taken) != 0 || !reflect.DeepEqual(now, c) {
			t.Errorf("%s: got %v taken, %v waiting, want it to wait and nothing to change", f.path, taken, waiting)
		}
	}
}

func alter(f *field, c *Config) {
	v := f.of(c)
	switch v.Interface().(type) {
	case string:
		v.SetString(v.String() + "x")
	case bool:
		v.SetBool(!v.Bool())
	case []string:
		v.Set(reflect.ValueOf([]string{"x"}))
	case float64:
		v.SetFloat(v.Float() + 1)
	default: // whole numbers: sizes, durations
		v.SetInt(v.Int() + int64(time.Second))
	}
}

func TestFollowSecrets(t *testing.T) {
	for _, tc := range []struct {
		name    string
		from    func(c *Config)
		to      func(c *Config)
		taken   []string
		waiting []string
	}{
		{"a new value", nil, func(c *Config) { c.Zerobus.ClientSecret = "s2" }, []string{"zerobus.client_secret"}, nil},
		{"from value to file", nil, func(c *Config) { c.Kafka.SASL.Password, c.Kafka.SASL.PasswordFile = "", "/p" },
			[]string{"kafka.sasl.password", "kafka.sasl.password_file"}, nil},
		{"another file", nil, func(c *Config) { c.Ops.TokenFile = "/other" }, []string{"ops.token_file"}, nil},
		{"none any more", nil, func(c *Config) { c.Ops.TokenFile = "" }, nil, []string{"ops.token_file"}},
		{"none before", func(c *Config) { c.Ops.TokenFile = "" }, func(c *Config) { c.Ops.Token = "t" }, nil, []string{"ops.token"}},
		{"of another principal", nil, func(c *Config) { c.Zerobus.ClientID, c.Zerobus.ClientSecret = "other", "s2" },
			nil, []string{"zerobus.client_id", "zerobus.client_secret"}},
		{"of another user", nil, func(c *Config) { c.Kafka.SASL.Username, c.Kafka.SASL.Password = "other", "p2" },
			nil, []string{"kafka.sasl.username", "kafka.sasl.password"}},
		{"of another mechanism", nil, func(c *Config) { c.Kafka.SASL.Mechanism, c.Kafka.SASL.OAuth.ClientSecret = "oauthbearer", "o2" },
			nil, []string{"kafka.sasl.mechanism", "kafka.sasl.oauth.client_secret"}},
		{"beside what waits", nil, func(c *Config) { c.Kafka.Group, c.Zerobus.ClientSecret = "other", "s2" },
			[]string{"zerobus.client_secret"}, []string{"kafka.group"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := complete()
			if tc.from != nil {
				tc.from(c)
			}
			next := new(*c)
			tc.to(next)
			before := *c
			now, taken, waiting := c.Follow(next)
			if !slices.Equal(taken, tc.taken) || !slices.Equal(waiting, tc.waiting) {
				t.Errorf("got %v taken, %v waiting, want %v and %v", taken, waiting, tc.taken, tc.waiting)
			}
			if !reflect.DeepEqual(*c, before) {
				t.Error("the configuration in force was changed in place")
			}
			for _, f := range keys {
				if want := map[bool]*Config{true: next, false: c}[slices.Contains(taken, f.path)]; !same(f, now, want) {
					t.Errorf("%s is not what it should be now", f.path)
				}
			}
		})
	}
}
