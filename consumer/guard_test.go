package consumer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A few KiB from a producer must not become a heap of any size here. The
// partition stands still and says so for as long as it does, the others go on,
// and the group can be moved past the batch.
func TestABatchThatInflates(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produceTo(t, b, topic, []int32{0}, "before")
		bomb := client(t, b, kgo.ProducerBatchMaxBytes(80<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		if err := bomb.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: bytes.Repeat([]byte{'0'}, 65<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		produceTo(t, b, topic, []int32{0}, "behind")
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		produceTo(t, b, topic, []int32{1}, "beside")
		eventually(t, "the other events landed", func() bool { return tab.distinct() == 2 })
		eventually(t, "the batch is told", func() bool { return slices.Equal(m.reasons(), []string{"batch_too_large"}) })
		why := m.Status().NotReady[0]
		if !strings.Contains(why.Text, fmt.Sprintf("reading %s/0 at offset 1: the batch up to offset 1", topic)) ||
			!strings.Contains(why.Remedy, "offset to 2") || !strings.Contains(why.Remedy, "delivery.max_buffered") {
			t.Errorf("got %+v, want the partition, the offsets and what to do", why)
		}
		// The end of a partition that is not fetched is known from the look-out
		// alone, which ends the troubles that have passed.
		produceTo(t, b, topic, []int32{0, 1}, "last", "later")
		eventually(t, "events go on landing", func() bool { return tab.distinct() == 3 })
		eventually(t, "the look-out came round", func() bool { p, _ := m.partition(0); return p.End == 4 })
		if got := m.reasons(); !slices.Equal(got, []string{"batch_too_large"}) {
			t.Errorf("got the reasons %v, want the batch still told", got)
		}
		m.stop()

		past := kadm.Offsets{}
		past.AddOffset(topic, 0, 2, -1)
		if _, err := kadm.NewClient(bomb).CommitOffsets(t.Context(), cfg.Group, past); err != nil {
			t.Fatal(err)
		}
		m = start(t, cfg, tab)
		eventually(t, "what stands behind the batch landed", func() bool { return tab.distinct() == 5 })
		if got := m.reasons(); len(got) != 0 {
			t.Errorf("got the reasons %v past the batch, want none", got)
		}
		m.stop()
	})
}

// Nor must records that are next to nothing, but very many.
func TestABatchOfVeryManyRecords(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		const most = 128 << 20 / 256 // twice the bytes that a batch may take
		topic := kafkatest.Topic(t, b, 2)
		cl := client(t, b, kgo.ProducerBatchMaxBytes(80<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
			kgo.MaxBufferedRecords(2*most), kgo.ManualFlushing(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for id, n := range []int{most + 1000, most / 4} { // one batch each
			for range n {
				cl.Produce(t.Context(), &kgo.Record{Topic: topic, Partition: int32(id)}, nil)
			}
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		cfg := config(t, b, topic)
		m := start(t, cfg, newTable(t))
		eventually(t, "the batch is told", func() bool { return slices.Equal(m.reasons(), []string{"batch_too_large"}) })
		if why := m.Status().NotReady[0].Text; !strings.Contains(why, topic+"/0 at offset 0") {
			t.Errorf("got %s, want the batch of partition 0", why)
		}
		eventually(t, "the other batch is read", func() bool { p, ok := m.partition(1); return ok && p.Marked == most/4 })
		m.stop()
	})
}

// The dead-letter topics are read in answers that are bounded once decompressed.
func TestDenseLettersAreReadInPieces(t *testing.T) {
	box := newLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1)
	const letters, size = 100, 900 << 10
	dense := client(t, box.b, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for i := range letters {
		letter := consumer.MakeDeadLetter(&kgo.Record{Topic: box.cfg.Topics[0], Offset: int64(i), Value: append([]byte("bad"), make([]byte, size)...)}, toRow)
		letter.Topic = box.dlq()
		if err := dense.ProduceSync(t.Context(), letter).FirstErr(); err != nil { // a batch for each
			t.Fatal(err)
		}
	}
	box.cfg.FetchMaxBytes = 512 << 10 // some hundred of them
	box.cluster, _, _ = newCluster(t, box.cfg)
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	opened, err := box.cluster.OpenDeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, worst, n := heap(), uint64(0), 0
	err = opened.Each(t.Context(), func(l *consumer.DeadLetter) error {
		if n++; n%10 == 1 {
			worst = max(worst, heap())
		}
		if len(l.Original.Value) != size+3 || l.Original.Offset != int64(n-1) {
			t.Errorf("letter %d: got %d bytes of offset %d", n, len(l.Original.Value), l.Original.Offset)
		}
		return nil
	})
	if err != nil || n != letters {
		t.Errorf("got %d letters and %v, want %d", n, err, letters)
	}
	// Two answers of seven times the fetch size, a batch, and what Kafka holds.
	if most := uint64(30 << 20); worst > before+most {
		t.Errorf("got a heap of %d MiB above the %d before, want at most %d", (worst-before)>>20, before>>20, most>>20)
	}
}

// Nor may a dead-letter topic, which a running bridge reads for its page.
func TestALetterThatInflates(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		recs, _ := bads(1)
		box := newLetterBox(t, b, 1, recs...)
		bomb := client(t, b, kgo.ProducerBatchMaxBytes(80<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		if err := bomb.ProduceSync(t.Context(), &kgo.Record{Topic: box.dlq(), Value: bytes.Repeat([]byte{'0'}, 65<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		read := func(c *consumer.Cluster) (newest, each error) {
			letters, err := c.OpenDeadLetters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, newest = letters.Newest(t.Context(), 10)
			return newest, letters.Each(t.Context(), func(*consumer.DeadLetter) error { return nil })
		}
		newest, each := read(box.cluster)
		for what, err := range map[string]error{"newest": newest, "each": each} {
			if err == nil || !strings.Contains(err.Error(), box.dlq()+"/0 at offset 1: the batch up to offset 1 decompresses to more than") || !strings.Contains(err.Error(), "delivery.max_buffered") {
				t.Errorf("%s: got %v, want the batch refused, and what to do", what, err)
			}
		}
		// What the remedy says works.
		box.cfg.MaxBuffered = 80 << 20
		larger, _, _ := newCluster(t, box.cfg)
		if newest, each := read(larger); newest != nil || each != nil {
			t.Errorf("with a larger delivery.max_buffered: %v, %v", newest, each)
		}
	})
}

// The SDK's own client would take along what a pod shows for itself.
func TestAWSCredentialsFollowNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		t.Errorf("the redirect was followed with %v and %q", r.Header, body)
	}))
	defer elsewhere.Close()
	const token = "pod-token-57721"
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED"} {
		t.Setenv(name, "")
	}
	for name, value := range map[string]string{"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_REGION": "eu-central-1"} {
		t.Setenv(name, value)
	}
	for way, env := range map[string]map[string]string{
		"agent of the node":        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "here", "AWS_CONTAINER_AUTHORIZATION_TOKEN": token},
		"metadata of the instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "here"},
	} {
		for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
			t.Run(way+", "+http.StatusText(status), func(t *testing.T) {
				asked := false
				here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut { // of the instance: show yourself with this
						w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
						_, _ = io.WriteString(w, token)
						return
					}
					asked = r.Header.Get("Authorization") == token || r.Header.Get("X-Aws-Ec2-Metadata-Token") == token
					http.Redirect(w, r, elsewhere.URL+"/"+token, status)
				}))
				defer here.Close()
				for name, value := range env {
					t.Setenv(name, strings.Replace(value, "here", here.URL, 1))
				}
				err := consumer.MSKCredentials(t.Context())
				if err == nil || !asked {
					t.Fatalf("asked %v, got %v, want a refusal", asked, err)
				}
				// A 302 the SDK refuses itself.
				if status != http.StatusFound && (!strings.Contains(err.Error(), "do not follow redirects") || strings.Contains(err.Error(), token)) {
					t.Errorf("got %v, want to be told of the redirect, and not whereto", err)
				}
			})
		}
	}
}

// No endpoint gets the client secret but the one that is named.
func TestTokenRequestsFollowNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		t.Errorf("the redirect was followed with %v and %q", r.Header, body)
	}))
	defer elsewhere.Close()
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			idp := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
			defer idp.Close()
			o := consumer.OAuth{TokenURL: idp.URL, ClientID: "bridge", ReadClientSecret: password("client-secret-16180")}
			if _, err := o.Token(); err == nil || !strings.Contains(err.Error(), "do not follow redirects") || strings.Contains(err.Error(), "16180") {
				t.Errorf("got %v, want to be told of the redirect", err)
			}
		})
	}
}

// Neither the brokers nor the token endpoint are spoken to below TLS 1.2.
func TestOldTLSIsRefused(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{TLS: true, ClientCert: true})
	sec := b.Security()
	pair, err := tls.LoadX509KeyPair(sec.CertFile, sec.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair},
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) // the server that must be refused
	if err != nil {
		t.Fatal(err)
	}
	spoke := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var first [1]byte
			if n, _ := conn.Read(first[:]); n > 0 {
				spoke <- "a byte came through"
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })

	cfg := config(t, b, "t")
	cfg.Kafka.Brokers = []string{listener.Addr().String()}
	cluster, _, _ := newCluster(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := cluster.ID(ctx); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("broker: got %v, want a fault of TLS", err)
	}
	o := consumer.OAuth{TokenURL: "https://" + listener.Addr().String(), ClientID: "bridge", ReadClientSecret: password("client-secret-16180")}
	if _, err := o.Token(); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("token endpoint: got %v, want a fault of TLS", err)
	}
	if len(spoke) > 0 {
		t.Error(<-spoke)
	}
}

// A broker without TLS is told from one that is away.
func TestPlainBrokerBehindTLS(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("not a record of TLS"))
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	cfg := config(t, kafkatest.StartFake(t, kafkatest.Options{}), "t")
	cfg.Kafka.Brokers, cfg.Kafka.TLS = []string{listener.Addr().String()}, consumer.TLS{Enabled: true}
	cluster, _, _ := newCluster(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = cluster.ID(ctx)
	var failure *consumer.KafkaError
	if !errors.As(err, &failure) || !strings.Contains(failure.Remedy, "does not speak TLS") {
		t.Errorf("got %v, want to be told that the port is a plain one", err)
	}
}

// A key file is read, and what is in it stays there.
func TestKeyStaysOutOfErrors(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{TLS: true, ClientCert: true})
	sec := b.Security()
	key, err := os.ReadFile(sec.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	err = consumer.CheckTLS(consumer.TLS{CAFile: sec.CAFile, CertFile: sec.KeyFile, KeyFile: sec.KeyFile})
	if err == nil {
		t.Fatal("a key was taken for a certificate")
	}
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
			t.Errorf("got %v, which repeats the key", err)
		}
	}
}
