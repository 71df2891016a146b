package setting_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/setting"
)

type config struct {
	Box box `yaml:"box"`
}

type box struct {
	Kind   string         `yaml:"kind" default:"plain" choices:"plain,deep-blue"`
	Wait   time.Duration  `yaml:"wait" default:"5s" min:"1s" max:"1m" zero:"true"`
	Size   setting.Size   `yaml:"size" default:"1KiB" min:"1" max:"1MiB"`
	Names  []string       `yaml:"names" unique:"true"`
	Owner  string         `yaml:"owner" required:"the owner of the box"`
	Depth  int            `yaml:"depth" min:"0" max:"9" when:"kind=deep-blue"`
	Key    setting.Secret `yaml:"key" required:"the key of the box" only_when:"locked=true" with:"owner"`
	File   string         `yaml:"key_file" only_when:"locked=true"`
	Locked bool           `yaml:"locked"`
	hidden int
	Hook   func() `yaml:"-"`
}

func (b *box) Check(c *setting.Check) {
	if b.Owner == "nobody" && c.OK("box.owner") {
		c.Fail("box.owner", "is nobody", "name a person")
	}
	_ = b.hidden
}

var schema = setting.SchemaOf[config]()

func TestComplete(t *testing.T) {
	for _, tc := range []struct {
		name string
		box  box
		want string // the key and its rule; "" for no problem
	}{
		{"defaults", box{Owner: "me"}, ""},
		{"choice", box{Owner: "me", Kind: "deep_blu"}, `box.kind "deep_blu" must be one of plain, deep-blue; did you mean deep-blue?`},
		{"bound", box{Owner: "me", Size: 2 << 20}, `box.size "2MiB" must be between 1 and 1MiB; choose a size between them`},
		{"twice", box{Owner: "me", Names: []string{"a", "b", "a"}}, `box.names "a" is listed twice`},
		{"missing", box{}, "box.owner is required; set it to the owner of the box, in the file or as BRIDGE_BOX_OWNER"},
		{"own rule", box{Owner: "nobody"}, `box.owner "nobody" is nobody; name a person`},
		{"missing secret", box{Owner: "me", Locked: true}, "box.key is required with box.locked true; set box.key_file to a file that holds the key of the box"},
		{"secret or file", box{Owner: "me", Locked: true, File: "/nowhere"}, ""},
		{"both", box{Owner: "me", Locked: true, Key: "hush", File: "f"}, `box.key_file "f" must not be set together with box.key`},
		{"blank", box{Owner: "me", Locked: true, Key: " "}, "box.key is blank"},
		{"without effect", box{Owner: "me", Key: "hush"}, "box.key has no effect while box.locked is false; take it out, or set box.locked to true"},
	} {
		c := config{tc.box}
		err := errors.Join(schema.Complete(&c)...)
		if (err == nil) != (tc.want == "") || err != nil && (!strings.HasPrefix(err.Error(), tc.want) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	c := config{box{Owner: "me"}}
	if problems := schema.Complete(&c); len(problems) > 0 || c.Box.Kind != "plain" || c.Box.Size != setting.KiB || c.Box.Wait != 0 {
		t.Errorf("got %v and %+v, want the defaults, and no wait as it may be zero", problems, c.Box)
	}
	if problems := schema.Complete(&config{}, "box.owner"); len(problems) > 0 {
		t.Errorf("got %v, want the key skipped", problems)
	}
}

func TestWithoutEffect(t *testing.T) {
	c := config{box{Kind: "plain", Depth: 3}}
	why, remedy := schema.WithoutEffect(schema.Key("box.depth"), &c)
	if why != "with box.kind plain" || remedy != "take it out, or set box.kind to deep-blue" {
		t.Errorf("got %q, %q", why, remedy)
	}
	c.Box.Kind = "deep-blue"
	if why, _ := schema.WithoutEffect(schema.Key("box.depth"), &c); why != "" {
		t.Errorf("got %q, want an effect", why)
	}
}

func TestSchemaOf(t *testing.T) {
	if len(schema.Keys) != 9 || !schema.Sections["box"] || schema.Key("box.hidden") != nil {
		t.Errorf("got %d keys, sections %v", len(schema.Keys), schema.Sections)
	}
	if k := schema.Key("box.key"); k.Type != "secret" || k.Required || k.Env != "BRIDGE_BOX_KEY" || strings.Join(k.With(), ",") != "box.owner" {
		t.Errorf("got %+v", k)
	}
	defer func() {
		if recover() == nil {
			t.Error("a default that does not fit its key was accepted")
		}
	}()
	setting.SchemaOf[struct {
		A struct {
			N int `yaml:"n" default:"many"`
		} `yaml:"a"`
	}]()
}

func TestURL(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "h.example": "https://h.example", " https://h.example/a?b ": "https://h.example", "http://[::1]:1/": "http://[::1]:1",
		"http://h.example": "must be https", "https://u:hush@h.example": "must not hold a user", "https://h:99999": "valid host and port", "https://": "must be a URL",
	} {
		rule := ""
		c := &setting.Check{Faulty: map[string]bool{}, Report: func(_, value, r, _ string) {
			rule = r
			if strings.Contains(value, "hush") {
				t.Errorf("%s: the password is in %q", text, value)
			}
		}}
		if got := c.BaseURL("box.owner", text); rule == "" && got != want || rule != "" && !strings.Contains(rule, want) {
			t.Errorf("%q: got %q, %q; want %q", text, got, rule, want)
		}
	}
}
