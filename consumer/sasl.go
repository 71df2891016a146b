package consumer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/datafly/bridge/internal/oauthtoken"
)

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

// bearer makes a refused token the error that every other mechanism has for
// refused credentials. A broker tells of it by a challenge (RFC 7628, section
// 3.2.2), on which the client gives up with an error of no kind.
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

// tokenError is a token that could not be had.
type tokenError struct {
	url     string
	err     error
	refused bool // the endpoint answered, and will not answer otherwise
}

func (e *tokenError) Error() string {
	return fmt.Sprintf("getting a kafka token from %s: %v", e.url, e.err)
}

func (e *tokenError) Unwrap() error { return e.err }

// oauthTimeout bounds one token request: the source has no context of its own.
const oauthTimeout = 20 * time.Second

// newTokenClient returns what carries the client secret. It never follows a
// redirect, and keeps no connection: a token is asked for once in a lifetime.
func (o *OAuth) newTokenClient() *http.Client {
	rt := o.over
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

// Token mints one token; it implements oauth2.TokenSource. Nothing the endpoint
// says gets into an error but its status and an error code in plain letters:
// the rest could be the secret, sent back.
func (o *OAuth) Token() (*oauth2.Token, error) {
	secret, err := o.readSecret()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), oauthTimeout) //nolint:forbidigo // oauth2.TokenSource has no context; the timeout is the bound
	defer cancel()
	cc := clientcredentials.Config{ClientID: o.ClientID, ClientSecret: secret, TokenURL: o.TokenURL, Scopes: o.Scopes}
	token, err := cc.Token(context.WithValue(ctx, oauth2.HTTPClient, o.newTokenClient()))
	var answer *oauth2.RetrieveError
	var wire *url.Error
	switch {
	case errors.As(err, &answer):
		return nil, o.refusal(answer, secret)
	case errors.As(err, &wire):
		return nil, &tokenError{url: o.TokenURL, err: wire.Err}
	case err != nil:
		return nil, &tokenError{url: o.TokenURL, err: errors.New("the answer is no token")}
	case strings.ContainsFunc(token.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		// Control characters separate the fields of what the broker is sent
		// (RFC 7628, section 3.1).
		return nil, &tokenError{url: o.TokenURL, err: errors.New("the token holds characters no token may have")}
	}
	return token, nil
}

// oauthCode is what OAuth 2.0 has for error codes (RFC 6749, section 5.2), and
// what servers make of it.
var oauthCode = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// refusal explains an answer outside 2xx.
func (o *OAuth) refusal(answer *oauth2.RetrieveError, secret string) *tokenError {
	status := answer.Response.StatusCode
	said := fmt.Sprintf("status %d %s", status, http.StatusText(status))
	if status/100 == 3 {
		said += ", which sends us elsewhere, and credentials do not follow redirects"
	}
	if code := answer.ErrorCode; oauthCode.MatchString(code) && !strings.Contains(code, secret) {
		said += fmt.Sprintf(", code %q", code)
	}
	return &tokenError{url: o.TokenURL, err: errors.New(said),
		refused: status >= 300 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests}
}

// mskCredentials asks the AWS default chain (environment, web identity, pod
// identity, instance role), which caches and refreshes by itself.
func mskCredentials(ctx context.Context) (aws.Auth, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(staysHere)
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(client),
		// Containers' and pods' endpoints are asked by a client of their own.
		awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }))
	if err != nil {
		return aws.Auth{}, fmt.Errorf("loading AWS credentials: %w; give the pod a role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	creds, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case errors.Is(err, errElsewhere):
		// Without what is around it, which has the address we were sent to.
		return aws.Auth{}, fmt.Errorf("retrieving AWS credentials: %w; check the AWS_ variables that name an endpoint, and the proxy", errElsewhere)
	case err != nil:
		return aws.Auth{}, fmt.Errorf("retrieving AWS credentials: %w; give the pod a role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	return aws.Auth{AccessKey: creds.AccessKeyID, SecretKey: creds.SecretAccessKey, SessionToken: creds.SessionToken}, nil
}

var errElsewhere = errors.New("the answer sends us elsewhere, and credentials do not follow redirects")

// staysHere refuses redirects. The SDK's client follows 307 and 308 with all that
// the request carries, and a client of another type would take AWS_CA_BUNDLE and
// the short timeouts for the instance's metadata from it. What it leaves open is
// the transport, which asks for the proxy before it connects; a request that has a
// Response comes of a redirect.
func staysHere(t *http.Transport) {
	proxy := t.Proxy
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		switch {
		case r.Response != nil:
			return nil, errElsewhere
		case proxy == nil:
			return nil, nil
		}
		return proxy(r)
	}
}
