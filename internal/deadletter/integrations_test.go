package deadletter_test

import (
	"context"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafkatest"
)

// Two integrations read one topic into two tables, and one of them rejects an event. A
// redrive writes it to the table of that one, and the other does not get it again.
func TestRedriveOfOneIntegration(t *testing.T) {
	for name, shared := range map[string]bool{"topics of their own": false, "one dead-letter topic": true} {
		t.Run(name, func(t *testing.T) {
			b := kafkatest.StartFake(t, kafkatest.Options{})
			topic := kafkatest.Topic(t, b, 1)
			orders, refunds := config(t, b, topic), config(t, b, topic)
			orders.Rejects.Integration, refunds.Rejects.Integration = "orders", "refunds"
			orders.Group, refunds.Group = "bridge-orders", "bridge-refunds"
			if shared {
				orders.Rejects.Topic, refunds.Rejects.Topic = topic+"-rejects", topic+"-rejects"
			}
			for _, text := range []string{"e1", "bad2", "worse3"} {
				produceRecords(t, b, &kgo.Record{Topic: topic, Value: []byte(text)})
			}
			tabOrders, tabRefunds := newTable(t), newTable(t)
			one, two := start(t, orders, tabOrders), startMapping(t, refunds, tabRefunds, refusing("worse"))
			eventually(t, "each has two rows and a dead letter", func() bool {
				return tabOrders.count() == 2 && tabRefunds.count() == 2 && one.deadLettered.Load() == 1 && two.deadLettered.Load() == 1
			})
			tabOrders.verify([]string{"e1", "worse3"})
			tabRefunds.verify([]string{"e1", "bad2"})

			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cl, _ := newClient(t, orders)
			open := func(cfgs ...consumer.Config) *deadletter.Reader {
				l, err := deadletter.Open(ctx, cl, cfgs...)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			redrive := func(cfg consumer.Config, tab *table) (values []string, elsewhere int) {
				l := open(cfg)
				err := l.Redrive(ctx, deadletter.RedriveOptions{Match: func(r *deadletter.Record) bool { return !r.Resolved }, Mapper: refusing("nothing"), Sink: tab, By: "tester",
					OnResult: func(result *deadletter.RedriveResult) {
						r := result.Record
						values = append(values, string(r.Original.Value)+" of "+r.Integration)
						if got := header(r, consumer.HeaderIntegration); got != r.Integration {
							t.Errorf("%s: got header %q, want the name of the integration", values, got)
						}
					}})
				if err != nil {
					t.Fatal(err)
				}
				return values, l.Elsewhere()
			}
			newest, err := open(orders).Newest(ctx, 10)
			if err != nil || len(newest) != 1 || newest[0].Integration != "orders" {
				t.Errorf("got %d newest, %v, want the one of orders", len(newest), err)
			}
			foreign := 0
			if shared {
				foreign = 1
			}
			// They are running still: what came to their topic would reach both tables.
			if got, elsewhere := redrive(orders, tabOrders); !slices.Equal(got, []string{"bad2 of orders"}) || elsewhere != foreign {
				t.Errorf("got %v and %d elsewhere, want the dead letter of orders and %d", got, elsewhere, foreign)
			}
			wantList(t, "rows of orders", sorted(tabOrders), []string{"0:0:e1", "0:1:bad2", "0:2:worse3"})
			tabRefunds.verify([]string{"e1", "bad2"})
			if got := endOf(t, b, topic); got != 3 {
				t.Errorf("got %d records in the source topic, want the 3 events", got)
			}
			if got, _ := redrive(orders, tabOrders); len(got) != 0 {
				t.Errorf("got %v of a second redrive, want nothing left", got)
			}
			if got, _ := redrive(refunds, tabRefunds); !slices.Equal(got, []string{"worse3 of refunds"}) {
				t.Errorf("got %v, want the dead letter of refunds", got)
			}
			wantList(t, "rows of refunds", sorted(tabRefunds), []string{"0:0:e1", "0:1:bad2", "0:2:worse3"})

			// Both together are listed with their integrations.
			l := open(orders, refunds)
			list := deadletter.NewList(10, len(l.Topics()))
			err = l.Each(ctx, func(r *deadletter.Record) error { list.Add(r); return nil })
			list.Done()
			if err != nil || list.Matched != 2 || len(list.Groups) != 2 || l.Elsewhere() != 0 {
				t.Fatalf("got %d dead letters in %d groups, %d elsewhere, %v, want one of each", list.Matched, len(list.Groups), l.Elsewhere(), err)
			}
			if got := []string{list.Groups[0].Integration, list.Groups[1].Integration}; !slices.Equal(got, []string{"orders", "refunds"}) {
				t.Errorf("got groups of %v", got)
			}
		})
	}
}

func sorted(tab *table) []string { return slices.Sorted(slices.Values(tab.snapshot())) }

func header(r *deadletter.Record, key string) (value string) {
	for _, h := range r.Headers {
		if h.Key == key {
			value = string(h.Value)
		}
	}
	return value
}
