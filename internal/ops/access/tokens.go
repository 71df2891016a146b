package access

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/datafly/bridge/internal/plaintext"
)

const (
	maxTokenFile = 256 << 10 // bytes
	maxKeys      = 100       // of a JWKS file
	maxToken     = 8 << 10   // bytes of a JWT
	minSecret    = 32        // bytes of the key of HS256
	// jwtLeeway is how far the clocks of issuer and bridge may differ.
	jwtLeeway = 30 * time.Second
)

// Files name what tokens are verified with; an empty name is none. They are read for each
// token, so that they can be replaced.
type Files struct {
	Tokens    string // lines "name role sha256:<hex>"
	JWTSecret string // key of HS256, at least 32 bytes
	JWKS      string // JSON Web Key Set with public keys of RS256 and ES256
	Audience  string // that a JWT must name; empty: any. Not the name of a file
	Now       func() time.Time
}

// Lookup returns the Tokens of the files; nil without any.
func (f Files) Lookup() Tokens {
	if f.Tokens == "" && f.JWTSecret == "" && f.JWKS == "" {
		return nil
	}
	return f.identify
}

func (f Files) identify(token string) (Identity, error) {
	if f.Tokens != "" {
		who, err := f.static(token)
		if err == nil || !errors.Is(err, ErrUnknown) {
			return who, err
		}
	}
	if f.JWTSecret == "" && f.JWKS == "" {
		return Identity{}, ErrUnknown
	}
	return f.jwt(token)
}

// tokenLine is a line of the file of tokens.
var tokenLine = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._@-]{0,63}) +(viewer|editor|admin) +sha256:([0-9a-f]{64})$`)

// static looks a token up in the file of tokens. It compares all lines.
func (f Files) static(token string) (who Identity, err error) {
	text, err := plaintext.ReadFile(f.Tokens, maxTokenFile)
	if err != nil {
		return Identity{}, err
	}
	given, err := sha256.Sum256([]byte(token)), ErrUnknown
	names, n := map[string]bool{}, 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := tokenLine.FindStringSubmatch(strings.Join(strings.Fields(line), " "))
		if m == nil || names[m[1]] {
			return Identity{}, fmt.Errorf(`%s:%d is not "name role sha256:<64 hexadecimal digits>" with a new name and the role viewer, editor or admin; correct the line`, f.Tokens, n)
		}
		names[m[1]] = true
		var want [sha256.Size]byte
		_, _ = hex.Decode(want[:], []byte(m[3])) // the expression allows only what decodes
		if equal(given, want) && token != "" {
			who, err = Identity{Name: m[1], Role: m[2]}, nil
		}
	}
	return who, err
}

// claims are those of a JWT that count here.
type claims struct {
	jwt.Claims
	Role string `json:"role"`
	Type string `json:"type"` // Signal: refresh, of a token that opens nothing
}

// jwt verifies a JSON Web Token. The algorithm decides which keys are tried: a public
// key is never used as a secret.
func (f Files) jwt(token string) (Identity, error) {
	secret, keys, err := f.keys()
	if err != nil {
		return Identity{}, err
	}
	var allowed []jose.SignatureAlgorithm
	if secret != nil {
		allowed = append(allowed, jose.HS256)
	}
	if keys != nil {
		allowed = append(allowed, jose.RS256, jose.ES256)
	}
	if len(token) > maxToken {
		return Identity{}, ErrUnknown
	}
	parsed, err := jwt.ParseSigned(token, allowed)
	if err != nil {
		return Identity{}, ErrUnknown
	}
	c, ok := claims{}, false
	if h := parsed.Headers[0]; h.Algorithm == string(jose.HS256) {
		ok = parsed.Claims(secret, &c) == nil
	} else {
		for _, k := range keys {
			if (h.KeyID == "" || k.KeyID == h.KeyID) && (k.Algorithm == "" || k.Algorithm == h.Algorithm) && !ok {
				c = claims{}
				ok = parsed.Claims(k.Key, &c) == nil
			}
		}
	}
	if c.Role == "owner" { // of Signal
		c.Role = Admin
	}
	if !ok || c.Expiry == nil || f.Audience != "" && !c.Audience.Contains(f.Audience) || c.Type != "" && c.Type != "access" ||
		c.Subject == "" || plaintext.ShortLine(c.Subject, 100) != c.Subject {
		return Identity{}, ErrUnknown
	}
	now := time.Now
	if f.Now != nil {
		now = f.Now
	}
	switch err := c.ValidateWithLeeway(jwt.Expected{Time: now()}, jwtLeeway); {
	case errors.Is(err, jwt.ErrExpired):
		return Identity{}, ErrExpired
	case err != nil:
		return Identity{}, ErrUnknown
	case ranks[c.Role] == 0:
		return Identity{}, ErrNoRole
	}
	return Identity{Name: c.Subject, Role: c.Role}, nil
}

// keys reads the keys that verify JSON Web Tokens.
func (f Files) keys() (secret []byte, keys []jose.JSONWebKey, err error) {
	if f.JWTSecret != "" {
		text, err := plaintext.ReadFile(f.JWTSecret, maxTokenFile)
		if err != nil {
			return nil, nil, err
		}
		if secret = []byte(plaintext.Secret(string(text))); len(secret) < minSecret {
			return nil, nil, fmt.Errorf("%s has %d bytes, and HS256 needs %d; use openssl rand -base64 48", f.JWTSecret, len(secret), minSecret)
		}
	}
	if f.JWKS != "" {
		text, err := plaintext.ReadFile(f.JWKS, maxTokenFile)
		if err != nil {
			return nil, nil, err
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(text, &set); err != nil {
			return nil, nil, fmt.Errorf("%s is no JSON Web Key Set: %w; save that of the issuer", f.JWKS, err)
		}
		for _, k := range set.Keys {
			if k.IsPublic() && (k.Use == "" || k.Use == "sig") && len(keys) < maxKeys {
				keys = append(keys, k)
			}
		}
		if len(keys) == 0 {
			return nil, nil, fmt.Errorf("%s has no public key; save the JSON Web Key Set of the issuer", f.JWKS)
		}
	}
	return secret, keys, nil
}

// Check reads the files, and returns what is wrong with them.
func (f Files) Check() error {
	if _, err := f.identify(""); err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	return nil
}
