package kafkatest

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL mechanisms for [Options.SASL], by the names Kafka uses on the wire.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// The one user every cluster with SASL knows.
const (
	username = "bridge"
	password = "kafkatest-password"
)

// Security is what a client needs to connect besides addresses. Empty fields
// mean that the brokers do not ask for it.
type Security struct {
	CAFile   string // PEM, verifies the brokers' certificates (127.0.0.1, localhost)
	CertFile string // PEM, a client certificate signed by the same authority
	KeyFile  string // PEM, its private key

	Mechanism string // one of the constants above
	Username  string
	Password  string

	certs *certificates // nil without TLS
	mtls  bool
}

func newSecurity(dir string, o Options) (Security, error) {
	s := Security{mtls: o.ClientCert}
	if o.TLS {
		certs, err := newCertificates(dir)
		if err != nil {
			return Security{}, fmt.Errorf("making certificates: %w", err)
		}
		s.certs = certs
		s.CAFile, s.CertFile, s.KeyFile = certs.caFile, certs.clientFile, certs.clientKeyFile
	}
	if o.SASL != "" {
		s.Mechanism, s.Username = o.SASL, username
		if o.SASL != OAuthBearer {
			s.Password = password
		}
	}
	return s, nil
}

// opts returns what a kgo client needs to connect.
func (s Security) opts() []kgo.Opt {
	var opts []kgo.Opt
	if s.certs != nil {
		opts = append(opts, kgo.DialTLSConfig(s.certs.clientConfig()))
	}
	if m := s.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

func (s Security) mechanism() sasl.Mechanism {
	switch s.Mechanism {
	case Plain:
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism()
	case ScramSHA256:
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism()
	case ScramSHA512:
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism()
	case OAuthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			return oauth.Auth{Token: UnsecuredToken(s.Username, time.Hour)}, nil
		})
	}
	return nil
}

// protocol is Kafka's name for the client listener's kind.
func (s Security) protocol() string {
	switch {
	case s.certs != nil && s.Mechanism != "":
		return "SASL_SSL"
	case s.certs != nil:
		return "SSL"
	case s.Mechanism != "":
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}

// brokerConfig returns the keys of server.properties that secure the client
// listener.
func (s Security) brokerConfig() map[string]string {
	p := make(map[string]string)
	if s.certs != nil {
		p["listener.name.client.ssl.keystore.type"] = "PEM"
		p["listener.name.client.ssl.keystore.location"] = s.certs.serverFile
		p["listener.name.client.ssl.truststore.type"] = "PEM"
		p["listener.name.client.ssl.truststore.location"] = s.certs.caFile
		if s.mtls {
			p["listener.name.client.ssl.client.auth"] = "required"
		}
	}
	const pkg = "org.apache.kafka.common.security."
	var jaas string
	switch s.Mechanism {
	case "":
		return p
	case Plain:
		jaas = pkg + "plain.PlainLoginModule required user_" + s.Username + `="` + s.Password + `";`
		p["listener.name.client.plain.sasl.jaas.config"] = jaas
	case ScramSHA256:
		p["listener.name.client.scram-sha-256.sasl.jaas.config"] = pkg + "scram.ScramLoginModule required;"
	case ScramSHA512:
		p["listener.name.client.scram-sha-512.sasl.jaas.config"] = pkg + "scram.ScramLoginModule required;"
	case OAuthBearer:
		p["listener.name.client.oauthbearer.sasl.jaas.config"] = pkg + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
	}
	p["listener.name.client.sasl.enabled.mechanisms"] = s.Mechanism
	return p
}

// formatArgs adds the user to the first records of the metadata log, where SCRAM
// keeps its users.
func (s Security) formatArgs() []string {
	if s.Mechanism != ScramSHA256 && s.Mechanism != ScramSHA512 {
		return nil
	}
	return []string{"--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", s.Mechanism, s.Username, s.Password)}
}

// UnsecuredToken makes a token that a cluster with SASL OAUTHBEARER accepts until
// lifetime has passed: an unsigned JSON Web Token, which Kafka's default
// validator takes for development, see
// https://kafka.apache.org/documentation/#security_sasl_oauthbearer.
func UnsecuredToken(subject string, lifetime time.Duration) string {
	now := time.Now()
	enc := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, subject, now.Unix(), now.Add(lifetime).Unix())
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(claims)) + "."
}
