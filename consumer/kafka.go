package consumer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
)

// Kafka says how to reach the brokers.
type Kafka struct {
	Brokers  []string // host:port seeds
	ClientID string   // shown in broker logs and quotas
	TLS      *TLS     // nil: plaintext
	SASL     SASL

	// dial connects to a broker; nil: over TCP. Tests put brokers into the
	// process, where time is theirs.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// TLS verifies brokers always; there is no switch to turn that off.
type TLS struct {
	CAFile     string // PEM; empty: the system's roots
	CertFile   string // PEM client certificate, with KeyFile; re-read for each connection
	KeyFile    string
	ServerName string // name to expect when it differs from the broker's host name
}

func (t *TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
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
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("loading kafka.tls.cert_file %s and key_file %s: %w; both must be PEM and belong together", t.CertFile, t.KeyFile, err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	// Read anew for each connection, so that a renewed certificate is used
	// without a restart.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
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
	if k.TLS != nil {
		c, err := k.TLS.config()
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
	// Permanent means that waiting will not help: credentials, grants or
	// certificates are wrong.
	Permanent bool
}

func (e *KafkaError) Error() string {
	return fmt.Sprintf("%s: %v; %s", e.Doing, e.Err, e.Remedy)
}

func (e *KafkaError) Unwrap() error { return e.Err }

// explain puts the remedy to a client error.
func (k *Kafka) explain(doing string, err error) *KafkaError {
	e := &KafkaError{Doing: doing, Err: err}
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var token *tokenError
	switch {
	case errors.As(err, &token):
		e.Permanent = token.refused
		e.Remedy = "check kafka.sasl.oauth: token_url, client_id, client_secret and scopes"
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.IllegalSaslState):
		e.Permanent = true
		e.Remedy = "check kafka.sasl.mechanism, username and password, or what the oauth token says: the broker refused the credentials"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		e.Permanent = true
		e.Remedy = "set kafka.sasl.mechanism to one the broker has enabled"
	case errors.As(err, &cert):
		e.Permanent = true
		e.Remedy = "set kafka.tls.ca_file to the CA that signed the broker's certificate, and kafka.tls.server_name if its name differs"
	case errors.As(err, &record):
		e.Remedy = "the broker does not speak TLS on that port: name its TLS port in kafka.brokers, or set kafka.tls.enabled to false"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		e.Permanent = true
		e.Remedy = "grant the principal READ on the topic and the group, and WRITE on the dead-letter topic"
	case errors.Is(err, kerr.FencedInstanceID), errors.Is(err, kerr.UnreleasedInstanceID):
		e.Remedy = "give each member a kafka.instance_id of its own; after a kill the old one is free again within kafka.session_timeout"
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.FencedMemberEpoch), errors.Is(err, kerr.StaleMemberEpoch):
		e.Remedy = "the member joins again by itself; if this recurs, raise kafka.session_timeout"
	case errors.Is(err, io.EOF):
		e.Remedy = "the broker closed the connection at once: it may be starting, expect TLS (kafka.tls.enabled) or SASL (kafka.sasl.mechanism), or refuse the credentials without a word"
	default:
		e.Remedy = fmt.Sprintf("check kafka.brokers (%s), that the brokers are up, and that the network allows the connection", strings.Join(k.Brokers, ","))
	}
	return e
}
