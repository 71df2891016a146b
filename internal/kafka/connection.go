package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/datafly/bridge/internal/oauthtoken"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
)

// Connection is how to reach the brokers of a cluster, and what to read there.
type Connection struct {
	Brokers  []string // host:port seeds
	ClientID string   // shown in broker logs and quotas
	Version  string   // of the bridge; shown to brokers, and written into dead letters
	TLS      TLS
	SASL     SASL
	// Isolation is IsolationCommitted, which is also what empty means, or
	// IsolationUncommitted, which also reads the events of open and aborted
	// transactions.
	Isolation string
	// Dial connects to a broker. Nil: over TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Wrap, if not nil, wraps each connection, above TLS.
	Wrap func(net.Conn) net.Conn
}

// Isolation levels.
const (
	IsolationCommitted   = "read_committed"
	IsolationUncommitted = "read_uncommitted"
)

// MetadataMaxAge is how soon clients notice new partitions.
const MetadataMaxAge = 30 * time.Second

// Options are the client options that every client of the cluster shares.
func (c *Connection) Options(log *zap.Logger) ([]kgo.Opt, error) {
	isolation := kgo.ReadCommitted()
	if c.Isolation == IsolationUncommitted {
		isolation = kgo.ReadUncommitted()
	}
	level := func() kgo.LogLevel {
		if log.Core().Enabled(zap.DebugLevel) {
			return kgo.LogLevelDebug
		}
		return kgo.LogLevelNone
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("bridge", softwareVersion(c.Version)),
		kgo.FetchIsolationLevel(isolation),
		kgo.MetadataMaxAge(MetadataMaxAge),
		kgo.MetadataMinAge(250 * time.Millisecond),
		// Pushing client metrics to the brokers (KIP-714) would delay a stop; the
		// bridge's metrics are at /metrics.
		kgo.DisableClientMetrics(),
		// The bridge reports each failure of the client once; the client's own log
		// is for debugging.
		kgo.WithLogger(kzap.New(log.Named("kafka"), kzap.LevelFn(level))),
	}
	dial, err := c.dialer(log)
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.Dialer(dial))
	mechanism, err := c.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(contained{mechanism}))
	}
	return opts, nil
}

// dialer returns how to connect to a broker.
func (c *Connection) dialer(log *zap.Logger) (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	plain := &net.Dialer{Timeout: 10 * time.Second}
	dial := plain.DialContext
	if c.TLS.Enabled {
		config, err := c.TLS.Config(log)
		if err != nil {
			return nil, err
		}
		// Without a ServerName it takes the host of the address.
		dial = (&tls.Dialer{NetDialer: plain, Config: config}).DialContext
	}
	if c.Dial != nil {
		dial = c.Dial
	}
	if c.Wrap == nil {
		return dial, nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return c.Wrap(conn), nil
	}, nil
}

// softwareVersion drops what brokers refuse: KIP-511 allows letters, digits,
// dots and dashes, and neither dots nor dashes at the ends.
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

// access is how this process reaches the cluster, for the commands in remedies.
func (c *Connection) access() Access {
	secured := c.SASL.Mechanism != "" && c.SASL.Mechanism != "none"
	a := Access{Brokers: c.Brokers, Secured: secured || c.TLS.Enabled, IAM: c.SASL.Mechanism == "aws-msk-iam"}
	switch {
	case c.SASL.Mechanism == "oauthbearer", a.IAM: // only the brokers know
	case secured:
		a.Principal = "User:" + c.SASL.Username
	case !c.TLS.Enabled || c.TLS.CertFile == "":
		a.Principal = "User:ANONYMOUS"
	default:
		if pair, err := c.TLS.readPair(); err == nil && pair.Leaf != nil {
			a.Principal = "User:" + pair.Leaf.Subject.String()
		}
	}
	return a
}

// Admin returns the arguments by which Kafka's tools reach the cluster.
func (c *Connection) Admin() string { return c.access().Admin() }

// TLS is the encryption of connections to the brokers, TLS 1.2 or newer. Brokers
// are always verified.
type TLS struct {
	Enabled bool `yaml:"enabled"`
	// CAFile is a PEM file of the authorities to trust instead of the system's.
	CAFile string `yaml:"ca_file" readable:"without it the system's settings apply" only_when:"enabled=true"`
	// CertFile and KeyFile are this client's PEM certificate and key (mutual TLS),
	// both or neither. They are read again for each connection.
	CertFile string `yaml:"cert_file" readable:"without it the system's settings apply" only_when:"enabled=true"`
	KeyFile  string `yaml:"key_file" readable:"without it the system's settings apply" only_when:"enabled=true"`
	// ServerName is the name that the brokers' certificates must have; empty is each
	// broker's host name.
	ServerName string `yaml:"server_name" only_when:"enabled=true"`
}

// Config reads the files. The error names the setting at fault.
func (t *TLS) Config(log *zap.Logger) (*tls.Config, error) {
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
			cert, err := t.readPair()
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
	// Read for each connection, so that a renewed certificate needs no restart.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.Get() }
	return c, nil
}

func (t *TLS) readPair() (tls.Certificate, error) {
	cert, err := plaintext.ReadPEM(t.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := plaintext.ReadPEM(t.KeyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// SASL is how the bridge authenticates to the brokers.
type SASL struct {
	// Mechanism: aws-msk-iam takes credentials and role from the default AWS chain
	// and the region from the brokers' names. Empty is none.
	Mechanism string `yaml:"mechanism" default:"none" choices:"none,plain,scram-sha-256,scram-sha-512,oauthbearer,aws-msk-iam"`
	// Username for plain and scram. For Confluent Cloud, the API key.
	Username string `yaml:"username" required:"the name of the user" only_when:"mechanism=plain,scram-sha-256,scram-sha-512"`
	// Password for plain and scram, or PasswordFile, which is read again at each login.
	Password     setting.Secret `yaml:"password" required:"the user's password" only_when:"mechanism=plain,scram-sha-256,scram-sha-512" with:"username,mechanism,kafka.brokers"`
	PasswordFile string         `yaml:"password_file" only_when:"mechanism=plain,scram-sha-256,scram-sha-512"`
	// AllowPlaintext lets plain and oauthbearer go without TLS to brokers that are
	// not on the loopback: whoever sees the traffic has the password or the token.
	AllowPlaintext bool  `yaml:"allow_plaintext" when:"kafka.tls.enabled=false;mechanism=plain,oauthbearer" remedy:"take it out"`
	OAuth          OAuth `yaml:"oauth" only_when:"mechanism=oauthbearer"`

	// ReadPassword, if not nil, returns the password for each new connection
	// instead of Password and PasswordFile.
	ReadPassword func() (string, error) `yaml:"-" json:"-"`
}

// OAuth is the client-credentials grant of mechanism oauthbearer.
type OAuth struct {
	// TokenURL of the authorization server, https (http to loopback only).
	TokenURL string `yaml:"token_url" required:"the token endpoint of the authorization server"`
	// ClientID at the authorization server.
	ClientID string `yaml:"client_id" required:"the client at the authorization server"`
	// ClientSecret, or ClientSecretFile, which is read again for each token.
	ClientSecret     setting.Secret `yaml:"client_secret" required:"the client's secret" with:"client_id,token_url,kafka.sasl.mechanism"`
	ClientSecretFile string         `yaml:"client_secret_file"`
	// Scopes to request.
	Scopes []string `yaml:"scopes"`

	// ReadClientSecret, if not nil, returns the secret for each token instead of
	// ClientSecret and ClientSecretFile.
	ReadClientSecret func() (string, error) `yaml:"-" json:"-"`

	Transport http.RoundTripper `yaml:"-" json:"-"` // nil: the network
}

// PasswordSource returns where the password comes from.
func (s SASL) PasswordSource() setting.SecretSource {
	return setting.SecretSource{Key: "kafka.sasl.password", Value: s.Password, File: s.PasswordFile}
}

// ClientSecretSource returns where the client secret comes from.
func (o OAuth) ClientSecretSource() setting.SecretSource {
	return setting.SecretSource{Key: "kafka.sasl.oauth.client_secret", Value: o.ClientSecret, File: o.ClientSecretFile}
}

// readPassword and readSecret are called for each new connection and token, so that
// a rotated file is used without a restart.
func (s *SASL) readPassword() (string, error) {
	if s.ReadPassword != nil {
		return s.ReadPassword()
	}
	return s.PasswordSource().Read()
}

func (o *OAuth) readSecret() (string, error) {
	if o.ReadClientSecret != nil {
		return o.ReadClientSecret()
	}
	return o.ClientSecretSource().Read()
}

// mechanism returns nil for none.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "", "none":
		return nil, nil
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := s.readPassword()
			return plain.Auth{User: s.Username, Pass: pass}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(s.scram), nil
	case "scram-sha-512":
		return scram.Sha512(s.scram), nil
	case "oauthbearer":
		source := oauth2.ReuseTokenSourceWithExpiry(nil, &s.OAuth, time.Minute)
		return bearer{oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := source.Token()
			if err != nil {
				return oauth.Auth{}, err
			}
			return oauth.Auth{Token: token.AccessToken}, nil
		})}, nil
	case "aws-msk-iam":
		return aws.ManagedStreamingIAM(mskCredentials), nil
	}
	return nil, fmt.Errorf("kafka.sasl.mechanism %q is not known; use none, plain, scram-sha-256, scram-sha-512, oauthbearer or aws-msk-iam", s.Mechanism)
}

func (s *SASL) scram(context.Context) (scram.Auth, error) {
	pass, err := s.readPassword()
	return scram.Auth{User: s.Username, Pass: pass}, err
}

// contained makes a panic on the way to credentials an error of the connection.
type contained struct{ sasl.Mechanism }

func (c contained) Authenticate(ctx context.Context, host string) (_ sasl.Session, _ []byte, err error) {
	defer panics.To(&err)
	return c.Mechanism.Authenticate(ctx, host)
}

// bearer gives a refused token the same error as other refused credentials. A
// broker reports it by a challenge (RFC 7628, section 3.2.2), on which the client
// fails with an error that has no code.
type bearer struct{ sasl.Mechanism }

func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	session, first, err := b.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	return bearerSession{session}, first, nil
}

type bearerSession struct{ sasl.Session }

func (b bearerSession) Challenge(challenge []byte) (bool, []byte, error) {
	done, answer, err := b.Session.Challenge(challenge)
	if err != nil {
		err = fmt.Errorf("the broker refused the token: %w: %w", kerr.SaslAuthenticationFailed, err)
	}
	return done, answer, err
}

// tokenError is a failed token request.
type tokenError struct {
	url     string
	err     error
	refused bool // the endpoint answered, and a retry gets the same answer
}

func (e *tokenError) Error() string {
	return fmt.Sprintf("getting a kafka token from %s: %v", e.url, e.err)
}

func (e *tokenError) Unwrap() error { return e.err }

// oauthTimeout bounds one token request: the source has no context of its own.
const oauthTimeout = 20 * time.Second

// client carries the client secret. It never follows a redirect and keeps no
// connection: a token is requested once in its lifetime.
func (o *OAuth) client() *http.Client {
	rt := o.Transport
	if rt == nil {
		rt = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
		}
	}
	return &http.Client{
		Transport:     oauthtoken.Tolerant(rt),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Token implements oauth2.TokenSource. Of the endpoint's answer an error holds only
// the status and an error code of plain characters: the rest could quote the secret.
func (o *OAuth) Token() (*oauth2.Token, error) {
	secret, err := o.readSecret()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), oauthTimeout) //nolint:forbidigo // oauth2.TokenSource has no context; the timeout is the bound
	defer cancel()
	cc := clientcredentials.Config{ClientID: o.ClientID, ClientSecret: secret, TokenURL: o.TokenURL, Scopes: o.Scopes}
	token, err := cc.Token(context.WithValue(ctx, oauth2.HTTPClient, o.client()))
	var answer *oauth2.RetrieveError
	var network *url.Error
	switch {
	case errors.As(err, &answer):
		return nil, o.refusal(answer, secret)
	case errors.As(err, &network):
		return nil, &tokenError{url: o.TokenURL, err: network.Err}
	case err != nil:
		return nil, &tokenError{url: o.TokenURL, err: errors.New("the answer is no token")}
	case strings.ContainsFunc(token.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		// Control characters separate the fields of the message to the broker
		// (RFC 7628, section 3.1).
		return nil, &tokenError{url: o.TokenURL, err: errors.New("the token holds characters no token may have")}
	}
	return token, nil
}

// oauthCode matches the error codes of OAuth 2.0 (RFC 6749, section 5.2) and of
// servers that extend them.
var oauthCode = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// refusal explains an answer outside 2xx.
func (o *OAuth) refusal(answer *oauth2.RetrieveError, secret string) *tokenError {
	status := answer.Response.StatusCode
	text := fmt.Sprintf("status %d %s", status, http.StatusText(status))
	if status/100 == 3 {
		text += ", a redirect, and credentials do not follow redirects"
	}
	if code := answer.ErrorCode; oauthCode.MatchString(code) && !strings.Contains(code, secret) {
		text += fmt.Sprintf(", code %q", code)
	}
	return &tokenError{url: o.TokenURL, err: errors.New(text),
		refused: status >= 300 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests}
}

// mskCredentials asks the AWS default chain (environment, web identity, pod
// identity, instance role), which caches and refreshes.
func mskCredentials(ctx context.Context) (aws.Auth, error) {
	const remedy = "give the pod a role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	client := awshttp.NewBuildableClient().WithTransportOptions(refuseRedirects)
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(client),
		// The endpoints of containers and pods have a client of their own.
		awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }))
	if err != nil {
		return aws.Auth{}, fmt.Errorf("loading AWS credentials: %w; %s", err, remedy)
	}
	creds, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case errors.Is(err, errRedirect):
		// Without the error around it, which has the address of the redirect.
		return aws.Auth{}, fmt.Errorf("retrieving AWS credentials: %w; check the AWS_ variables that name an endpoint, and the proxy", errRedirect)
	case err != nil:
		return aws.Auth{}, fmt.Errorf("retrieving AWS credentials: %w; %s", err, remedy)
	}
	return aws.Auth{AccessKey: creds.AccessKeyID, SecretKey: creds.SecretAccessKey, SessionToken: creds.SessionToken}, nil
}

var errRedirect = errors.New("the answer is a redirect, and credentials do not follow redirects")

// refuseRedirects makes a transport refuse them. The SDK's client follows 307 and
// 308 with all that the request carries, and a client of another type would lose
// AWS_CA_BUNDLE and the short timeouts for instance metadata. The transport can be
// changed: it asks for the proxy before it connects, and only a request that
// follows a redirect has a Response.
func refuseRedirects(t *http.Transport) {
	proxy := t.Proxy
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		switch {
		case r.Response != nil:
			return nil, errRedirect
		case proxy == nil:
			return nil, nil
		}
		return proxy(r)
	}
}
