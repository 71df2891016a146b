package webhook

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/setting"
)

// Settings are for requests about changes of the state of integrations.
type Settings struct {
	// URL receives a POST for each change; empty: none. It is a secret, since URLs of chat
	// tools hold a token. URLFile names a file that holds it instead, which is read again
	// for each request.
	URL     setting.Secret `yaml:"url"`
	URLFile string         `yaml:"url_file"`
	// Secret signs the requests with HMAC-SHA256; empty: they are not signed. SecretFile
	// names a file that holds it instead, which is read again for each request.
	Secret     setting.Secret `yaml:"secret"`
	SecretFile string         `yaml:"secret_file"`
	// States are reported when an integration has been in one of them for 10 seconds. The
	// healthy ones, delivering, idle and catching up, are reported after another one only.
	States []string `yaml:"states" default:"delivering,idle,catching up,falling behind,blocked,failed" unique:"true"`
}

// names are the values of Settings.States.
var names = []string{ops.VerdictDelivering, ops.VerdictIdle, ops.VerdictCatchingUp, ops.VerdictFallingBehind, ops.VerdictBlocked, ops.VerdictFailed, ops.VerdictDisabled, ops.VerdictStarting}

// URLSource is where the URL comes from; ok is false when there is none.
func (s Settings) URLSource() (source setting.SecretSource, ok bool) {
	return setting.SecretSource{Key: "webhook.url", Value: s.URL, File: s.URLFile}, s.URL != "" || s.URLFile != ""
}

// secretSource is where the secret comes from; ok is false when there is none.
func (s Settings) secretSource() (source setting.SecretSource, ok bool) {
	return setting.SecretSource{Key: "webhook.secret", Value: s.Secret, File: s.SecretFile}, s.Secret != "" || s.SecretFile != ""
}

// minSecret is the least length of a secret, in bytes: a shorter one can be found from
// one signed request.
const minSecret = 16

// Check implements the rules about the URL, the secret and the states.
func (s *Settings) Check(c *setting.Check) {
	for _, state := range s.States {
		if c.OK("webhook.states") && !slices.Contains(names, state) {
			c.FailValue("webhook.states", state, "is not a state of an integration", "name some of: "+strings.Join(names, ", "))
		}
	}
	check := func(source setting.SecretSource, given bool, rule func(text string) (problem, remedy string)) {
		key := source.Key
		if source.File != "" {
			key += "_file"
		}
		if !given || !c.OK(source.Key, source.Key+"_file") || source.File != "" && !c.Files {
			return
		}
		if text, err := source.Read(); err == nil {
			if problem, remedy := rule(text); problem != "" {
				c.FailValue(key, "", problem, remedy)
			}
		}
	}
	source, given := s.URLSource()
	check(source, given, func(text string) (problem, remedy string) {
		if _, err := parse(text); err != nil {
			return err.Error(), "copy the URL from the tool that receives the messages"
		}
		return "", ""
	})
	source, signed := s.secretSource()
	check(source, signed, func(text string) (problem, remedy string) {
		if len(text) < minSecret {
			return "must be at least 16 characters long, or it could be guessed", "generate one with: openssl rand -hex 24"
		}
		return "", ""
	})
	if signed && !given && c.OK("webhook.url", "webhook.url_file", "webhook.secret") {
		c.FailValue("webhook.secret", "", "has nothing to sign without webhook.url", "set webhook.url_file, or take the secret out")
	}
}

// parse returns the URL of text. No error repeats it.
func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("must be an http or https URL without a user")
	}
	return u, nil
}
