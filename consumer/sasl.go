package consumer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// SASL says who we are to the brokers. Secrets are functions that are called
// for each new connection, so a rotated file is picked up without a restart.
type SASL struct {
	// Mechanism is "none", "plain", "scram-sha-256", "scram-sha-512",
	// "oauthbearer" or "aws-msk-iam".
	Mechanism string
	Username  string
	Password  func() (string, error)
	OAuth     OAuth
}

// OAuth mints OAUTHBEARER tokens by OAuth 2.0 client credentials.
type OAuth struct {
	TokenURL     string
	ClientID     string
	ClientSecret func() (string, error)
	Scopes       []string
}

// mechanism returns nil for none.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "", "none":
		return nil, nil
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := s.Password()
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
	pass, err := s.Password()
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

// Token mints one token; it implements oauth2.TokenSource.
func (o *OAuth) Token() (*oauth2.Token, error) {
	secret, err := o.ClientSecret()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), oauthTimeout) //nolint:forbidigo // oauth2.TokenSource has no context; the timeout is the bound
	defer cancel()
	cc := clientcredentials.Config{ClientID: o.ClientID, ClientSecret: secret, TokenURL: o.TokenURL, Scopes: o.Scopes}
	token, err := cc.Token(ctx)
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) {
		// The whole error holds the response body, which is not ours to log.
		status := answer.Response.StatusCode
		return nil, &tokenError{
			url: o.TokenURL, err: fmt.Errorf("status %s, code %q", answer.Response.Status, answer.ErrorCode),
			refused: status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests,
		}
	}
	if err != nil {
		return nil, &tokenError{url: o.TokenURL, err: err}
	}
	return token, nil
}

// mskCredentials asks the AWS default chain (environment, web identity, pod
// identity, instance role), which caches and refreshes by itself.
func mskCredentials(ctx context.Context) (aws.Auth, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return aws.Auth{}, fmt.Errorf("loading AWS credentials: %w; give the pod a role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Auth{}, fmt.Errorf("retrieving AWS credentials: %w; give the pod a role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	return aws.Auth{AccessKey: creds.AccessKeyID, SecretKey: creds.SecretAccessKey, SessionToken: creds.SessionToken}, nil
}
