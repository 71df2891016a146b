package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/setting"
)

// The keys that take effect without a restart, besides secrets.
var live = []string{"zerobus.rate_limit", "mapping.blueprint", "mapping.blueprint_text", "mapping.variant", "log.level", "integrations_dir"}

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
	for _, f := range schema.Keys {
		if f.Type == "secret" || strings.HasSuffix(f.Path, "_file") {
			continue // below
		}
		c, next := complete(), complete()
		alter(f, next)
		now, taken, waiting := c.Follow(next)
		if slices.Contains(live, f.Path) {
			if !slices.Equal(taken, []string{f.Path}) || len(waiting) != 0 || !f.Same(now, next) {
				t.Errorf("%s: got %v taken, %v waiting, want it taken", f.Path, taken, waiting)
			}
			continue
		}
		if !slices.Equal(waiting, []string{f.Path}) || len(taken) != 0 || !reflect.DeepEqual(now, c) {
			t.Errorf("%s: got %v taken, %v waiting, want it to wait and nothing to change", f.Path, taken, waiting)
		}
	}
}

func alter(f *Key, c *Config) {
	v := f.In(c)
	switch v.Interface().(type) {
	case string, setting.Secret:
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
			for _, f := range schema.Keys {
				if want := map[bool]*Config{true: next, false: c}[slices.Contains(taken, f.Path)]; !f.Same(now, want) {
					t.Errorf("%s is not what it should be now", f.Path)
				}
			}
		})
	}
}
