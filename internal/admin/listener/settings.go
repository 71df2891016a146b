// Package listener has the settings of the install API's own listener.
package listener

import (
	"github.com/datafly/bridge/internal/setting"
)

// Settings are where the install API listens and who may use it. Without a token file,
// a JWT secret and a key set, it is open, on the loopback only.
type Settings struct {
	// Enabled serves the install API and the console at Address.
	Enabled bool `yaml:"enabled"`
	// Address to listen on, host:port; an empty host is every interface, port 0 any
	// free port.
	Address string `yaml:"address" default:"127.0.0.1:8084" when:"enabled=true"`
	// TokenFile has a line `name role sha256:<hex>` for each token, where the digest is
	// of the token. It is read again for each request.
	TokenFile string `yaml:"token_file" readable:"without one, a JWT or the loopback is needed" when:"enabled=true"`
	// JWTSecretFile has the secret of JWTs that are signed with HS256, JWKSFile the
	// public keys of others. Both are read again for each request.
	JWTSecretFile string `yaml:"jwt_secret_file" when:"enabled=true"`
	JWKSFile      string `yaml:"jwks_file" readable:"without one, tokens or the loopback are needed" when:"enabled=true"`
	// JWTAudience is what the claim aud of a JWT must contain. The keys of an identity
	// provider sign tokens for other programs too, so it is required with JWKSFile.
	JWTAudience string `yaml:"jwt_audience" when:"enabled=true"`
	// TLSCertFile and TLSKeyFile are PEM files; without them, HTTP is served.
	TLSCertFile string `yaml:"tls_cert_file" readable:"without a certificate, HTTP is served" when:"enabled=true"`
	TLSKeyFile  string `yaml:"tls_key_file" readable:"without a certificate, HTTP is served" when:"enabled=true"`
	// RateLimit is how many requests per minute each token may send.
	RateLimit int `yaml:"rate_limit" default:"100" min:"1" max:"1000000" when:"enabled=true"`
}

// minJWTSecret is the least length of the secret for HS256, in bytes (RFC 7518, 3.2).
const minJWTSecret = 32

// JWTSecret is where the secret of JWTs comes from.
func (s Settings) JWTSecret() setting.SecretSource {
	return setting.SecretSource{Key: "admin.jwt_secret", File: s.JWTSecretFile}
}

// Open reports whether no token is required.
func (s Settings) Open() bool { return s.TokenFile == "" && s.JWTSecretFile == "" && s.JWKSFile == "" }

// Check implements the rules about the address, the tokens and the certificate.
func (s *Settings) Check(c *setting.Check) {
	const address, secret, jwks, audience = "admin.address", "admin.jwt_secret_file", "admin.jwks_file", "admin.jwt_audience"
	host, valid := setting.SplitAddress(s.Address, 0)
	switch {
	case !c.OK(address):
	case !valid:
		c.Fail(address, "must be host:port with a port from 0 to 65535", "write it as 127.0.0.1:8084, or :8084 for every interface")
	case s.Enabled && s.Open() && !setting.Loopback(host) && c.OK("admin.token_file", secret, jwks):
		c.Fail(address, "can be reached from other machines, and no token is required", "set admin.token_file, admin.jwt_secret_file or admin.jwks_file")
	}
	if s.JWTSecretFile != "" && s.JWKSFile != "" && c.OK(secret, jwks) {
		c.Fail(jwks, "must not be set together with "+secret, "keep one of the two")
	}
	switch {
	case !c.OK(secret, jwks, audience):
	case s.JWKSFile != "" && s.JWTAudience == "":
		c.Fail(audience, "is empty, so that a token which the identity provider made for another program would be accepted", "set it to the client id of the console at the identity provider")
	case s.JWTAudience != "" && s.JWKSFile == "" && s.JWTSecretFile == "":
		c.Fail(audience, "has no effect without JSON Web Tokens", "set "+secret+" or "+jwks+", or remove it")
	}
	if given, missing := "admin.tls_cert_file", "admin.tls_key_file"; c.OK(given, missing) && (s.TLSCertFile == "") != (s.TLSKeyFile == "") {
		if s.TLSCertFile == "" {
			given, missing = missing, given
		}
		c.Fail(given, "needs "+missing+" beside it", "set both for TLS, or neither")
	}
	if s.JWTSecretFile == "" || !c.Files || !c.OK(secret, jwks) {
		return
	}
	if text, err := s.JWTSecret().Read(); err != nil {
		c.Fail(secret, "cannot be used: "+setting.Cause(err), "let it name a readable file that holds the secret and nothing else")
	} else if len(text) < minJWTSecret {
		c.Fail(secret, "must hold at least 32 characters, or the secret could be guessed", "generate one with: openssl rand -hex 32")
	}
}
