package kafkatest_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/datafly/bridge/internal/kafkatest"
)

func TestSecuredListeners(t *testing.T) {
	for name, o := range map[string]kafkatest.Options{
		"tls":                {TLS: true},
		"mtls":               {TLS: true, ClientCert: true},
		"plain over tls":     {TLS: true, SASL: kafkatest.Plain},
		"scram-sha-256":      {SASL: kafkatest.ScramSHA256},
		"scram-sha-512":      {SASL: kafkatest.ScramSHA512},
		"oauthbearer":        {SASL: kafkatest.OAuthBearer},
		"all of it together": {TLS: true, ClientCert: true, SASL: kafkatest.ScramSHA512},
	} {
		t.Run(name, func(t *testing.T) {
			o.Private = true // seven clusters at once would be too many
			kafkatest.Each(t, o, func(t *testing.T, b kafkatest.Broker) {
				topic := kafkatest.Topic(t, b, 1)
				produce(t, b, topic, 0, 10)
				consume(t, b, topic, "", 10)

				bare := kgoClient(t, kgo.SeedBrokers(b.Addrs()...))
				defer bare.Close()
				if err := pingClient(t, bare); err == nil {
					t.Error("a client without TLS or SASL was let in")
				}
			})
		})
	}
}

func TestClientCertificateIsDemanded(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{TLS: true, ClientCert: true, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		pem, err := os.ReadFile(b.Security().CAFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			t.Fatal("the CA file holds no certificate")
		}
		conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		without := kgoClient(t, kgo.SeedBrokers(b.Addrs()...), kgo.DialTLSConfig(conf))
		defer without.Close()
		if err := pingClient(t, without); err == nil {
			t.Error("a client without a certificate was let in")
		}

		cert, err := tls.LoadX509KeyPair(b.Security().CertFile, b.Security().KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		conf = conf.Clone()
		conf.Certificates = []tls.Certificate{cert}
		with := kgoClient(t, kgo.SeedBrokers(b.Addrs()...), kgo.DialTLSConfig(conf))
		defer with.Close()
		if err := pingClient(t, with); err != nil {
			t.Errorf("a client with the certificate was refused: %v", err)
		}
	})
}

func TestWrongPasswordIsRefused(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.Plain, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		wrong := plain.Auth{User: b.Security().Username, Pass: "wrong"}.AsMechanism()
		cl := kgoClient(t, kgo.SeedBrokers(b.Addrs()...), kgo.SASL(wrong))
		defer cl.Close()
		if err := pingClient(t, cl); err == nil {
			t.Error("a wrong password was accepted")
		}
	})
}

func TestExpiredTokenIsRefused(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{SASL: kafkatest.OAuthBearer})
	expired := oauth.Auth{Token: kafkatest.UnsecuredToken("bridge", -time.Minute)}.AsMechanism()
	cl := kgoClient(t, kgo.SeedBrokers(c.Brokers()...), kgo.SASL(expired))
	defer cl.Close()
	if err := pingClient(t, cl); err == nil {
		t.Error("an expired token was accepted")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]kafkatest.Options{
		"two brokers":              {Brokers: 2},
		"certificates without tls": {ClientCert: true},
		"unknown mechanism":        {SASL: "GSSAPI"},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := kafkatest.Run(t.Context(), "", o); err == nil {
				_ = c.Close()
				t.Errorf("Run(%+v) gave no error", o)
			}
		})
	}
}
