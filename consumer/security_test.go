package consumer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// delivers proves the configuration: events arrive, rejects are written.
func delivers(t *testing.T, b kafkatest.Broker, cfg consumer.Config) {
	t.Helper()
	produce(t, b, cfg.Topics[0], 1, "e1", "bad2", "e3")
	tab := newTable(t)
	m := start(t, cfg, tab)
	eventually(t, "all rows delivered", func() bool { return tab.distinct() == 2 })
	m.stop()
	tab.verify([]string{"e1", "e3"})
	wantAllCommitted(t, b, cfg.Group, cfg.Topics[0])
}

// refused wants a permanent error with the remedy and without the secret.
func refused(t *testing.T, cfg consumer.Config, remedy, secret string) {
	t.Helper()
	cluster, _, logs := newCluster(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := cluster.Reach(ctx, func(err error) { t.Errorf("waits for %v, want an end at once", err) })
	var failure *kafka.Error
	if !errors.As(err, &failure) || !failure.Permanent || !strings.Contains(err.Error(), remedy) {
		t.Errorf("got %v, want a permanent error with %q", err, remedy)
	}
	said := fmt.Sprint(err, logs.All())
	if secret != "" && strings.Contains(said, secret) {
		t.Errorf("the secret is in an error or a log: %s", said)
	}
}

const wrongPassword = "not-the-password-31415"

func password(p string) func() (string, error) { return func() (string, error) { return p, nil } }

func TestTLSAndPlain(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{TLS: true, SASL: kafkatest.Plain, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		cfg := config(t, b, kafkatest.Topic(t, b, 1))
		delivers(t, b, cfg)

		foreign := cfg
		foreign.Kafka.TLS = kafka.TLS{Enabled: true} // the system's roots
		refused(t, foreign, "set kafka.tls.ca_file", b.Security().Password)

		other := cfg
		other.Kafka.TLS = kafka.TLS{Enabled: true, CAFile: cfg.Kafka.TLS.CAFile, ServerName: "elsewhere.example"}
		refused(t, other, "kafka.tls.server_name", b.Security().Password)

		wrong := cfg
		wrong.Kafka.SASL.ReadPassword = password(wrongPassword)
		if !b.Apache() {
			// kfake hangs up where Kafka answers, as brokers before 1.0 did.
			cluster, _, _ := newCluster(t, wrong)
			if _, err := cluster.ID(t.Context()); err == nil || !strings.Contains(err.Error(), "refuse the credentials") || strings.Contains(err.Error(), wrongPassword) {
				t.Errorf("got %v, want the credentials as one cause", err)
			}
			return
		}
		refused(t, wrong, "check kafka.sasl.mechanism, username and password", wrongPassword)

		mechanism := cfg
		mechanism.Kafka.SASL.Mechanism = "scram-sha-256"
		refused(t, mechanism, "set kafka.sasl.mechanism to one the broker has enabled", b.Security().Password)
	})
}

func TestMutualTLSAndSCRAM512(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{TLS: true, ClientCert: true, SASL: kafkatest.ScramSHA512, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		cfg := config(t, b, kafkatest.Topic(t, b, 1))
		delivers(t, b, cfg)
		if b.Apache() {
			wrong := cfg
			wrong.Kafka.SASL.ReadPassword = password(wrongPassword)
			refused(t, wrong, "check kafka.sasl.mechanism, username and password", wrongPassword)
		}

		without := cfg
		without.Kafka.TLS = kafka.TLS{Enabled: true, CAFile: cfg.Kafka.TLS.CAFile}
		cluster, _, _ := newCluster(t, without)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := cluster.Reach(ctx, func(error) { cancel() }); err == nil {
			t.Error("a client without a certificate was let in")
		}
	})
}

// A password that is rotated at the brokers and in its file is picked up by the
// next connection, without a restart of the bridge.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.ScramSHA256, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		if !b.Apache() {
			t.Skip("kfake forgets an altered password in a restart")
		}
		topic := kafkatest.Topic(t, b, 1)
		file := filepath.Join(t.TempDir(), "password")
		write := func(p string) {
			if err := os.WriteFile(file, []byte(p), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(b.Security().Password)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Policy = consumer.PolicySkip
		cfg.Kafka.SASL.ReadPassword = func() (string, error) {
			p, err := os.ReadFile(file)
			return string(p), err
		}
		produce(t, b, topic, 1, "before")
		m := start(t, cfg, tab)
		eventually(t, "the first row delivered", func() bool { return tab.distinct() == 1 })

		adm := client(t, b)
		produceRecordsWith(t, adm, topic, "between") // a connection that is let in already
		const rotated = "rotated-27182"
		altered, err := kadm.NewClient(adm).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: b.Security().Username, Mechanism: kadm.ScramSha256, Iterations: 4096, Password: rotated}})
		if err != nil || altered.Error() != nil {
			t.Fatal(err, altered.Error())
		}
		write(rotated)
		produceRecordsWith(t, adm, topic, "after")
		eventually(t, "the old connections still serve", func() bool { return tab.distinct() == 3 })
		cut(t, b)
		fresh := cfg
		fresh.Kafka.SASL.ReadPassword = password(rotated)
		cluster, _, _ := newCluster(t, fresh)
		if _, err := cluster.Reach(t.Context(), func(error) {}); err != nil {
			t.Fatalf("the broker does not take the new password: %v", err)
		}
		refused(t, config(t, b, topic), "check kafka.sasl.mechanism, username and password", b.Security().Password)

		renewed, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.SASL(scram.Auth{User: b.Security().Username, Pass: rotated}.AsSha256Mechanism()))
		if err != nil {
			t.Fatal(err)
		}
		defer renewed.Close()
		produceRecordsWith(t, renewed, topic, "last")
		eventually(t, "events flow over new connections", func() bool { return tab.distinct() == 4 })
		eventually(t, "the member is ready", func() bool { return len(m.reasons()) == 0 })
		if m.logged(0, rotated) > 0 {
			t.Error("the password is in the log")
		}
		m.stop()
		tab.verifyDelivered([]string{"before", "between", "after", "last"})
	})
}

// cut ends every connection.
func cut(t *testing.T, b kafkatest.Broker) {
	t.Helper()
	b.Cluster().KillAll()
	// Not StartAll: it waits for an answer to the old password.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = b.Cluster().StartAll(ctx)
}

// OAUTHBEARER with tokens by client credentials.
func TestOAuthBearer(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.OAuthBearer, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		const secret = "client-secret-16180"
		var asked atomic.Int64
		var token atomic.Value
		token.Store(kafkatest.UnsecuredToken(b.Security().Username, time.Hour))
		idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			id, got, ok := r.BasicAuth()
			if !ok {
				id, got = r.FormValue("client_id"), r.FormValue("client_secret")
			}
			w.Header().Set("Content-Type", "application/json")
			if id != "bridge" || got != secret || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka" {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"error":"invalid_client","error_description":"the body is not for the log"}`))
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token.Load(), "token_type": "Bearer", "expires_in": 3600})
		}))
		defer idp.Close()
		cfg := config(t, b, kafkatest.Topic(t, b, 1))
		cfg.Kafka.SASL.OAuth = kafka.OAuth{TokenURL: idp.URL, ClientID: "bridge", ReadClientSecret: password(secret), Scopes: []string{"kafka"}}
		delivers(t, b, cfg)
		// One client of the cluster and one of the group, each with many
		// connections.
		if got := asked.Load(); got != 2 {
			t.Errorf("got %d token requests, want one for each of two clients", got)
		}

		wrong := cfg
		wrong.Kafka.SASL.OAuth.ReadClientSecret = password(wrongPassword)
		refused(t, wrong, "check kafka.sasl.oauth", wrongPassword)

		token.Store(kafkatest.UnsecuredToken(b.Security().Username, -time.Minute))
		refused(t, cfg, "the claims of the oauth token", secret)

		idp.Close()
		cluster, _, _ := newCluster(t, cfg)
		_, err := cluster.ID(t.Context())
		var failure *kafka.Error
		if !errors.As(err, &failure) || failure.Permanent || !strings.Contains(err.Error(), "kafka.sasl.oauth: token_url") {
			t.Errorf("without the endpoint: got %v, want an error that may pass and names the endpoint", err)
		}
	})
}

// Files that cannot be used are named before anything is dialled.
func TestTLSFilesAreChecked(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{TLS: true})
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sec := b.Security()
	for name, tc := range map[string]struct {
		tls  kafka.TLS
		want []string
	}{
		"no CA file":    {kafka.TLS{CAFile: filepath.Join(dir, "none")}, []string{"kafka.tls.ca_file", "none"}},
		"empty CA file": {kafka.TLS{CAFile: empty}, []string{"kafka.tls.ca_file", empty, "PEM"}},
		"no key":        {kafka.TLS{CAFile: sec.CAFile, CertFile: sec.CertFile, KeyFile: empty}, []string{"kafka.tls.cert_file", empty}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, b, "t")
			cfg.Kafka.TLS = tc.tls
			cfg.Kafka.TLS.Enabled = true
			_, err := consumer.NewCluster(cfg, nopLog)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestUnknownMechanism(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	cfg := config(t, b, "t")
	cfg.Kafka.SASL.Mechanism = "gssapi"
	if _, err := consumer.NewCluster(cfg, nopLog); err == nil || !strings.Contains(err.Error(), `"gssapi"`) || !strings.Contains(err.Error(), "scram-sha-512") {
		t.Errorf("got %v, want the mechanism and those there are", err)
	}
}

// MSK IAM signs with the credentials of the AWS default chain. There is no MSK
// here: the broker is kfake, answered for by hand.
func TestMSKIAM(t *testing.T) {
	const id, secret = "AKIDEXAMPLE", "aws-secret-14142"
	t.Setenv("AWS_ACCESS_KEY_ID", id)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-central-1") // the name of a broker of MSK reports it, an address does not
	b := kafkatest.StartFake(t, kafkatest.Options{SASL: kafkatest.Plain})
	var mechanism, payload atomic.Value
	fake := b.Fake() // the broker forgets it when it stops
	fake.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		mechanism.Store(req.(*kmsg.SASLHandshakeRequest).Mechanism)
		return req.ResponseKind(), nil, true
	})
	fake.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		payload.Store(string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes))
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	cfg := config(t, b, "t")
	cfg.Kafka.SASL = kafka.SASL{Mechanism: "aws-msk-iam"}
	refused(t, cfg, "the broker refused the credentials", secret)
	if got := mechanism.Load(); got != "AWS_MSK_IAM" {
		t.Errorf("mechanism: got %v, want AWS_MSK_IAM", got)
	}
	if got, _ := payload.Load().(string); !strings.Contains(got, "kafka-cluster:Connect") || !strings.Contains(got, id) || strings.Contains(got, secret) {
		t.Errorf("payload: got %s, want a signed request for kafka-cluster:Connect", got)
	}
}
