//go:build synctests

package consumer_test

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// neverTruncated answers where an epoch ended. This kfake does not know while
// nothing was produced since a leader moved, which the client takes for a log
// that was cut off; ours never are.
func (w *world) neverTruncated(req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	ends := w.ends()
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for _, t := range req.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.LeaderEpoch, part.EndOffset = p.Partition, p.LeaderEpoch, ends[p.Partition]
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

func refuseProduce(req *kmsg.ProduceRequest, with *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.ErrorCode = p.Partition, with.Code
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// fault has the brokers refuse requests until release.
func (w *world) fault(f kfake.Fault) *kfake.FaultHandle {
	h := w.kafka.Fault(f)
	w.faults = append(w.faults, h)
	return h
}

// refuseDeadLetters has the brokers refuse dead letters until release.
func (w *world) refuseDeadLetters(with *kerr.Error) { w.deadLetterFault.Store(with) }

// burying reads the dead letters of a request.
func (w *world) burying(t kmsg.ProduceRequestTopic) {
	for _, p := range t.Partitions {
		part := kmsg.NewFetchResponseTopicPartition()
		part.RecordBatches = p.Records
		got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, &part, kgo.DefaultDecompressor(), nil)
		for _, rec := range got.Records {
			w.buried(rec)
		}
	}
}

// holdFetches has fetches of the group's topic answered by nobody until release.
func (w *world) holdFetches() {
	w.hold(kmsg.Fetch, func(kmsg.Request) bool { return true }, time.Hour)
}

// holdDeadLetters has dead letters taken only when d has passed from now.
func (w *world) holdDeadLetters(d time.Duration) {
	deadLetters := w.kafka.TopicInfo(vdead).TopicID
	w.hold(kmsg.Produce, func(req kmsg.Request) bool {
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			if t.TopicID == deadLetters || t.Topic == vdead {
				return true
			}
		}
		return false
	}, d)
}

// hold has requests wait until d has passed from now, or for release, before the
// brokers act on them.
func (w *world) hold(key kmsg.Key, which func(kmsg.Request) bool, d time.Duration) {
	released, until := w.released, time.Now().Add(d)
	w.kafka.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-released:
			return nil, nil, false
		default:
		}
		if which(req) {
			w.kafka.SleepControl(func() {
				timer := time.NewTimer(time.Until(until))
				defer timer.Stop()
				select {
				case <-released:
				case <-timer.C:
				}
			})
		}
		return nil, nil, false
	})
}

// release lets go of what is held.
func (w *world) release() {
	close(w.released)
	w.released = make(chan struct{})
	w.mapping(nil)
	w.deadLetterFault.Store(nil)
	for _, h := range w.faults {
		h.Remove()
	}
	w.faults = nil
}

// addPartitions has the topic hold n partitions.
func (w *world) addPartitions(n int32) {
	w.t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 1000
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = vtopic, n
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(w.t.Context(), w.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		w.t.Fatalf("adding partitions: %v", err)
	}
	w.mu.Lock()
	for int(n) > len(w.logs) {
		w.logs = append(w.logs, nil)
	}
	w.mu.Unlock()
	w.client.ForceMetadataRefresh()
	w.pass(time.Second)
}
