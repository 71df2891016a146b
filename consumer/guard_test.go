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
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A few KiB from a producer must not become a heap of any size here. The
// partition is stalled and reports it for as long as it does, the others continue,
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
		eventually(t, "the other events delivered", func() bool { return tab.distinct() == 2 })
		eventually(t, "the batch is reported", func() bool { return slices.Equal(m.reasons(), []string{"batch_too_large"}) })
		why := m.Status().NotReady[0]
		if !strings.Contains(why.Text, fmt.Sprintf("reading %s/0 at offset 1: the batch up to offset 1", topic)) ||
			!strings.Contains(why.Remedy, "offset to 2") || !strings.Contains(why.Remedy, "delivery.max_buffered") {
			t.Errorf("got %+v, want the partition, the offsets and what to do", why)
		}
		// The end of a partition that is not fetched is known from the look-out
		// alone, which ends the troubles that have passed.
		produceTo(t, b, topic, []int32{0, 1}, "last", "later")
		eventually(t, "events are still delivered", func() bool { return tab.distinct() == 3 })
		eventually(t, "the look-out came round", func() bool { p, _ := m.partition(0); return p.End == 4 })
		if got := m.reasons(); !slices.Equal(got, []string{"batch_too_large"}) {
			t.Errorf("got the reasons %v, want the batch still reported", got)
		}
		m.stop()

		past := kadm.Offsets{}
		past.AddOffset(topic, 0, 2, -1)
		if _, err := kadm.NewClient(bomb).CommitOffsets(t.Context(), cfg.Group, past); err != nil {
			t.Fatal(err)
		}
		m = start(t, cfg, tab)
		eventually(t, "what stands behind the batch delivered", func() bool { return tab.distinct() == 5 })
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
		eventually(t, "the batch is reported", func() bool { return slices.Equal(m.reasons(), []string{"batch_too_large"}) })
		if why := m.Status().NotReady[0].Text; !strings.Contains(why, topic+"/0 at offset 0") {
			t.Errorf("got %s, want the batch of partition 0", why)
		}
		eventually(t, "the other batch is read", func() bool { p, ok := m.partition(1); return ok && p.Marked == most/4 })
		m.stop()
	})
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
			o := kafka.OAuth{TokenURL: idp.URL, ClientID: "bridge", ReadClientSecret: password("client-secret-16180")}
			if _, err := o.Token(); err == nil || !strings.Contains(err.Error(), "do not follow redirects") || strings.Contains(err.Error(), "16180") {
				t.Errorf("got %v, want an error that names the redirect", err)
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
	o := kafka.OAuth{TokenURL: "https://" + listener.Addr().String(), ClientID: "bridge", ReadClientSecret: password("client-secret-16180")}
	if _, err := o.Token(); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("token endpoint: got %v, want a fault of TLS", err)
	}
	if len(spoke) > 0 {
		t.Error(<-spoke)
	}
}

// The error of a broker without TLS differs from that of one that is away.
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
	cfg.Kafka.Brokers, cfg.Kafka.TLS = []string{listener.Addr().String()}, kafka.TLS{Enabled: true}
	cluster, _, _ := newCluster(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = cluster.ID(ctx)
	var failure *kafka.Error
	if !errors.As(err, &failure) || !strings.Contains(failure.Remedy, "does not speak TLS") {
		t.Errorf("got %v, want an error that names the plain port", err)
	}
}
