package kafkatest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL mechanisms for [Options.SASL], by Kafka's names.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// The user of every cluster with SASL.
const (
	username = "bridge"
	password = "kafkatest-password"
)

// Security is what a client needs to connect besides addresses. Empty fields
// are not needed.
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

// NewSecurity returns what o asks of clients. With TLS it makes certificates, as files
// in dir.
func NewSecurity(dir string, o Options) (Security, error) {
	s := Security{mtls: o.ClientCert}
	if o.TLS {
		certs, err := newCertificates(dir)
		if err != nil {
			return Security{}, fmt.Errorf("making certificates: %w", err)
		}
		s.certs = certs
		s.CAFile, s.CertFile, s.KeyFile = certs.file("ca.pem"), certs.file("client.pem"), certs.file("client.key")
	}
	if o.SASL != "" {
		s.Mechanism, s.Username = o.SASL, username
		if o.SASL != OAuthBearer {
			s.Password = password
		}
	}
	return s, nil
}

// FakeOpts returns the options of a kfake cluster that asks this of its clients. It
// cannot ask for OAUTHBEARER.
func (s Security) FakeOpts() []kfake.Opt {
	var opts []kfake.Opt
	if s.certs != nil {
		opts = append(opts, kfake.TLS(s.certs.serverConfig(s.mtls)))
	}
	if s.Mechanism != "" {
		opts = append(opts, kfake.EnableSASL(), kfake.Superuser(s.Mechanism, s.Username, s.Password))
	}
	return opts
}

// ClientOpts returns what a kgo client needs to connect, besides addresses.
func (s Security) ClientOpts() []kgo.Opt {
	var opts []kgo.Opt
	if s.certs != nil {
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: s.certs.roots, Certificates: []tls.Certificate{s.certs.client},
		}))
	}
	switch s.Mechanism {
	case Plain:
		opts = append(opts, kgo.SASL(plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism()))
	case ScramSHA256:
		opts = append(opts, kgo.SASL(scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism()))
	case ScramSHA512:
		opts = append(opts, kgo.SASL(scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism()))
	case OAuthBearer:
		opts = append(opts, kgo.SASL(oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			return oauth.Auth{Token: UnsecuredToken(s.Username, time.Hour)}, nil
		})))
	}
	return opts
}

// protocol is Kafka's name for the client listener's kind.
func (s Security) protocol() string {
	protocol := "PLAINTEXT"
	if s.certs != nil {
		protocol = "SSL"
	}
	if s.Mechanism != "" {
		protocol = "SASL_" + protocol
	}
	return protocol
}

// brokerConfig returns the keys of server.properties that secure the client
// listener.
func (s Security) brokerConfig() map[string]string {
	const listener, pkg = "listener.name.client.", "org.apache.kafka.common.security."
	p := make(map[string]string)
	if s.certs != nil {
		p[listener+"ssl.keystore.type"] = "PEM"
		p[listener+"ssl.keystore.location"] = s.certs.file("server.pem")
		p[listener+"ssl.truststore.type"] = "PEM"
		p[listener+"ssl.truststore.location"] = s.CAFile
		if s.mtls {
			p[listener+"ssl.client.auth"] = "required"
		}
	}
	if s.Mechanism != "" {
		p[listener+"sasl.enabled.mechanisms"] = s.Mechanism
	}
	switch s.Mechanism {
	case Plain:
		p[listener+"plain.sasl.jaas.config"] = pkg + "plain.PlainLoginModule required user_" + s.Username + `="` + s.Password + `";`
	case ScramSHA256:
		p[listener+"scram-sha-256.sasl.jaas.config"] = pkg + "scram.ScramLoginModule required;"
	case ScramSHA512:
		p[listener+"scram-sha-512.sasl.jaas.config"] = pkg + "scram.ScramLoginModule required;"
	case OAuthBearer:
		p[listener+"oauthbearer.sasl.jaas.config"] = pkg + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
	}
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

// UnsecuredToken makes a token that a cluster with SASL OAUTHBEARER accepts
// during lifetime: an unsigned JSON Web Token, which Kafka's default validator
// accepts for development, see
// https://kafka.apache.org/documentation/#security_sasl_oauthbearer.
func UnsecuredToken(subject string, lifetime time.Duration) string {
	now := time.Now()
	enc := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, subject, now.Unix(), now.Add(lifetime).Unix())
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(claims)) + "."
}

// certificates are an authority with one certificate for all brokers and one for
// clients, in memory and as files: ca.pem, server.pem with key and certificate,
// as Kafka reads it, client.pem and client.key.
type certificates struct {
	dir            string
	roots          *x509.CertPool
	server, client tls.Certificate
}

func (c *certificates) file(name string) string { return filepath.Join(c.dir, name) }

func newCertificates(dir string) (*certificates, error) {
	c := &certificates{dir: dir, roots: x509.NewCertPool()}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kafkatest authority"},
		IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caPEM, _, caKey, err := sign(1, ca, ca, nil)
	if err != nil {
		return nil, err
	}
	c.roots.AppendCertsFromPEM(caPEM)
	serverPEM, serverKey, _, err := sign(2, &x509.Certificate{
		Subject: pkix.Name{CommonName: "broker"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	if err != nil {
		return nil, err
	}
	clientPEM, clientKey, _, err := sign(3, &x509.Certificate{
		Subject:  pkix.Name{CommonName: username},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey)
	if err != nil {
		return nil, err
	}
	if c.server, err = tls.X509KeyPair(serverPEM, serverKey); err != nil {
		return nil, err
	}
	if c.client, err = tls.X509KeyPair(clientPEM, clientKey); err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"ca.pem": caPEM, "server.pem": append(serverKey, serverPEM...), "client.pem": clientPEM, "client.key": clientKey,
	} {
		if err := os.WriteFile(c.file(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// sign makes a key and the certificate for it, both in PEM, signed with caKey
// or, if that is nil, with the key itself.
func sign(serial int64, t, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (cert, keyPEM []byte, key *ecdsa.PrivateKey, err error) {
	t.SerialNumber = big.NewInt(serial)
	t.NotBefore, t.NotAfter = time.Now().AddDate(-2, 0, 0), time.Now().AddDate(2, 0, 0)
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, err
	}
	if caKey == nil {
		caKey = key
	}
	certDER, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), key, nil
}

// serverConfig is what kfake listens with.
func (c *certificates) serverConfig(clientCert bool) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.server}}
	if clientCert {
		conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, c.roots
	}
	return conf
}
