package consumer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/plaintext"
)

func (t *TLS) config(log *zap.Logger) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := plaintext.ReadPEM(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading kafka.tls.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls.ca_file %s holds no certificate; give the PEM file of the CA that signed the brokers' certificates", t.CAFile)
		}
	}
	if t.CertFile == "" {
		return c, nil
	}
	pair := plaintext.Kept[*tls.Certificate]{
		Read: func() (*tls.Certificate, error) {
			cert, err := readPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("loading kafka.tls.cert_file %s and key_file %s: %w; both must be PEM and belong together", t.CertFile, t.KeyFile, err)
			}
			return &cert, nil
		},
		Hung: func(err error) {
			log.Warn("the client certificate is not renewed; the last one is used", zap.Error(err))
		},
	}
	if _, err := pair.Get(); err != nil {
		return nil, err
	}
	// Read for each connection, so that a renewed certificate is used without a
	// restart.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.Get() }
	return c, nil
}

func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := plaintext.ReadPEM(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := plaintext.ReadPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// options are what every client of the cluster shares.
func (k *Kafka) options(log *zap.Logger, version string) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID(k.ClientID),
		kgo.SoftwareNameAndVersion("bridge", softwareVersion(version)),
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.DialTimeout(10 * time.Second),
		// Pushing client metrics to the brokers (KIP-714) would hold up a
		// stop; ours are at /metrics.
		kgo.DisableClientMetrics(),
		// Failures of the client are reported once, by us; its own log is
		// for debugging.
		kgo.WithLogger(kzap.New(log.Named("kafka"), kzap.LevelFn(debugOnly(log)))),
	}
	if k.dial != nil {
		opts = append(opts, kgo.Dialer(k.dial))
	}
	if k.TLS.Enabled {
		c, err := k.TLS.config(log)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	mechanism, err := k.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

// softwareVersion drops what brokers refuse: KIP-511 allows letters, digits,
// dots and dashes, and none of the latter two at the ends.
func softwareVersion(v string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, v)
	if clean = strings.Trim(clean, ".-"); clean == "" {
		return "dev"
	}
	return clean
}

func debugOnly(log *zap.Logger) func() kgo.LogLevel {
	return func() kgo.LogLevel {
		if log.Core().Enabled(zap.DebugLevel) {
			return kgo.LogLevelDebug
		}
		return kgo.LogLevelNone
	}
}

// KafkaError is a failure to work with the cluster, with what to do about it.
type KafkaError struct {
	Doing  string // gerund
	Err    error
	Remedy string
	// Permanent means that waiting will not help: credentials, grants,
	// certificates or settings are wrong.
	Permanent bool
}

func (e *KafkaError) Error() string {
	return fmt.Sprintf("%s: %v; %s", e.Doing, e.Err, e.Remedy)
}

func (e *KafkaError) Unwrap() error { return e.Err }

// explain puts the remedy to a client error. asked says what was asked of the
// brokers, where that is known.
func (k *Kafka) explain(doing string, err error, asked ...kafka.Request) *KafkaError {
	e := &KafkaError{Doing: doing, Err: err}
	var request kafka.Request
	if len(asked) > 0 {
		request = asked[0]
	}
	var token *tokenError
	if errors.As(err, &token) {
		e.Permanent = token.refused
		e.Remedy = "check kafka.sasl.oauth: token_url, client_id, client_secret and scopes"
		return e
	}
	if remedy, answered := kafka.Explain(err, request, k.access()); answered {
		e.Remedy, e.Permanent = remedy.Text, remedy.Permanent
		return e
	}
	// No broker has answered: it is about the connection.
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		e.Permanent = true
		e.Remedy = "set kafka.tls.ca_file to the CA that signed the broker's certificate, and kafka.tls.server_name if its name differs"
	case errors.As(err, &record):
		e.Remedy = "the broker does not speak TLS on that port: name its TLS port in kafka.brokers, or set kafka.tls.enabled to false"
	case errors.Is(err, io.EOF):
		e.Remedy = "the broker closed the connection at once: it may be starting, expect TLS (kafka.tls.enabled) or SASL (kafka.sasl.mechanism), or refuse the credentials without a word"
	default:
		e.Remedy = fmt.Sprintf("check kafka.brokers (%s), that the brokers are up, and that the network allows the connection", strings.Join(k.Brokers, ","))
	}
	return e
}

// access is how this process reaches the cluster, for the commands in remedies.
func (k *Kafka) access() kafka.Access {
	return kafka.Access{Brokers: k.Brokers, Principal: k.principal(), Secured: k.TLS.Enabled || k.secured(), IAM: k.SASL.Mechanism == "aws-msk-iam"}
}

func (k *Kafka) secured() bool { return k.SASL.Mechanism != "" && k.SASL.Mechanism != "none" }

// principal is the name that brokers have for this process unless they map
// names to others; empty where only they can know it.
func (k *Kafka) principal() string {
	switch {
	case k.SASL.Mechanism == "oauthbearer", k.SASL.Mechanism == "aws-msk-iam":
		return ""
	case k.secured():
		return "User:" + k.SASL.Username
	case !k.TLS.Enabled || k.TLS.CertFile == "":
		return "User:ANONYMOUS"
	}
	pair, err := readPair(k.TLS.CertFile, k.TLS.KeyFile)
	if err != nil || pair.Leaf == nil {
		return ""
	}
	return "User:" + pair.Leaf.Subject.String()
}
