package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/plaintext"
)

// principal returns the client of who creates and grants, with a name for messages: that of
// Options.Token, Options.Profile, DATABRICKS_TOKEN or DATABRICKS_CONFIG_PROFILE. Without them
// it is the service principal, without a name. Tokens stay in memory.
func (s *session) principal() (by *databricks.Client, name string, err error) {
	if s.Token != "" {
		return s.withToken(s.Token.Reveal()), "the principal of the token", nil
	}
	env := func(name string) string {
		for _, entry := range s.Load.Env {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		return ""
	}
	profile, token := s.Profile, strings.TrimSpace(env("DATABRICKS_TOKEN"))
	if profile == "" && token != "" {
		if host := env("DATABRICKS_HOST"); host != "" && !s.sameWorkspace(host) {
			return nil, "", fmt.Errorf("DATABRICKS_TOKEN is for DATABRICKS_HOST %q, not for %s; set a token of this workspace, or unset DATABRICKS_TOKEN", host, s.Workspace)
		}
		return s.withToken(token), "the principal of DATABRICKS_TOKEN", nil
	}
	if profile = cmp.Or(profile, env("DATABRICKS_CONFIG_PROFILE")); profile == "" {
		return s.own, "", nil
	}
	file := cmp.Or(env("DATABRICKS_CONFIG_FILE"), filepath.Join(s.Home, ".databrickscfg"))
	values, err := readProfile(file, profile)
	if err != nil {
		return nil, "", err
	}
	name = "the principal of profile " + profile
	id, secret := values["client_id"], values["client_secret"]
	switch {
	case values["host"] == "" || !s.sameWorkspace(values["host"]):
		return nil, "", fmt.Errorf("profile %s in %s is for the host %q, not for %s; name a profile of this workspace", profile, file, values["host"], s.Workspace)
	case values["token"] != "":
		return s.withToken(values["token"]), name, nil
	case id == "" || secret == "":
		return nil, "", fmt.Errorf("profile %s in %s has neither a token nor client_id and client_secret; add one of them, or set DATABRICKS_TOKEN", profile, file)
	}
	by = s.withToken("")
	credentials := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: s.Workspace + "/oidc/v1/token", Scopes: []string{"all-apis"}, AuthStyle: oauth2.AuthStyleInHeader}
	by.Secrets = func() []string { return []string{secret} }
	var kept *oauth2.Token
	by.Token = func(ctx context.Context) (string, error) {
		if !kept.Valid() {
			t, err := credentials.Token(context.WithValue(ctx, oauth2.HTTPClient, s.own.HTTP))
			if err != nil {
				return "", fmt.Errorf("a token for profile %s was refused: %s; check client_id and client_secret in %s", profile, tokenFault(err, secret), file)
			}
			kept = t
		}
		return kept.AccessToken, nil
	}
	return by, name, nil
}

// tokenFault describes why a token was refused, without what the answer may repeat.
func tokenFault(err error, secret string) string {
	if answered, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return databricks.Clean(fmt.Sprintf("HTTP %d %s", answered.Response.StatusCode, databricks.ErrorCode(answered.ErrorCode, []string{secret})), 200)
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		err = sent.Err
	}
	return databricks.Clean(err.Error(), 200, secret)
}

// withToken returns a client of the same workspace for another principal.
func (s *session) withToken(token string) *databricks.Client {
	by := *s.own
	by.Refused = nil
	by.Secrets = nil
	by.Token = func(context.Context) (string, error) { return token, nil }
	return &by
}

// sameWorkspace compares addresses by host and port.
func (s *session) sameWorkspace(address string) bool {
	host := func(address string) string {
		if !strings.Contains(address, "://") {
			address = "https://" + address
		}
		u, err := url.Parse(strings.TrimSpace(address))
		if err != nil {
			return ""
		}
		return strings.ToLower(u.Scheme + "://" + strings.TrimSuffix(u.Host, ":443"))
	}
	return host(address) != "" && host(address) == host(s.Workspace)
}

// maxProfiles bounds the file of profiles, in bytes.
const maxProfiles = 1 << 20

// readProfile reads one section of a file in the form of the Databricks CLI.
// https://docs.databricks.com/aws/en/dev-tools/auth/config-profiles
func readProfile(file, profile string) (map[string]string, error) {
	text, err := plaintext.ReadFile(file, maxProfiles)
	if err != nil {
		return nil, fmt.Errorf("reading profile %s: %w; name a readable file with DATABRICKS_CONFIG_FILE, or set DATABRICKS_TOKEN", profile, err)
	}
	var values map[string]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			if values != nil {
				break
			}
			if name, _, _ = strings.Cut(name, "]"); strings.TrimSpace(name) == profile {
				values = map[string]string{}
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && values != nil && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";") {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	if values == nil {
		return nil, fmt.Errorf("%s has no profile %s; name one that it has", file, profile)
	}
	return values, nil
}

// denied reports whether a principal lacks a privilege, or may not see what it concerns.
func denied(err error) bool {
	if e, ok := errors.AsType[*databricks.StatementError](err); ok {
		return e.Code == "PERMISSION_DENIED" || strings.Contains(e.Message, "INSUFFICIENT_PERMISSIONS") || strings.Contains(e.Message, "PERMISSION_DENIED")
	}
	e, ok := errors.AsType[*databricks.Error](err)
	return ok && e.Status == http.StatusForbidden
}
