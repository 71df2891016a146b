package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// Each missing permission is a problem whose remedy grants it. After the last one, the
// store works.
func TestPermissions(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{SASL: kafkatest.Plain, Config: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS;User:bridge",
		"listener.name.client.plain.sasl.jaas.config": `org.apache.kafka.common.security.plain.PlainLoginModule required user_bridge="kafkatest-password" user_limited="pw";`,
	}}, func(t *testing.T, b kafkatest.Broker) {
		if !b.Apache() {
			t.Skip("kfake has one user here")
		}
		o := options(b, kafkatest.Name(t))
		o.Connection.SASL.Username, o.Connection.SASL.Password = "limited", "pw"
		adm, audit := admin(t, b), o.Topic+"-audit"
		acl := func() *kadm.ACLBuilder {
			return kadm.NewACLs().ResourcePatternType(kadm.ACLPatternLiteral)
		}
		grant := func(a *kadm.ACLBuilder, ops ...kadm.ACLOperation) {
			t.Helper()
			created, err := adm.CreateACLs(within(t), a.Allow("User:limited").AllowHosts("*").Operations(ops...))
			must(t, err)
			for _, c := range created {
				must(t, c.Err)
			}
		}
		f := follow(t, o)
		s := open(t, o)
		const command = "--add --allow-principal User:limited --operation "
		for _, step := range []struct {
			code, remedy string
			grant        func()
		}{
			{store.Unreadable, command + "Read --topic " + o.Topic, func() { grant(acl().Topics(o.Topic), kadm.OpRead) }},
			{store.Missing, command + "Create --topic " + o.Topic, func() { grant(acl().Topics(o.Topic), kadm.OpCreate) }},
			{store.Unreadable, command + "Read --topic " + audit, func() { grant(acl().Topics(audit), kadm.OpRead) }},
			{store.Missing, command + "Create --topic " + audit, func() { grant(acl().Topics(audit), kadm.OpCreate) }},
			{store.NoTransactions, command + "Write --operation Describe --transactional-id " + o.Topic, func() { grant(acl().TransactionalIDs(o.Topic), kadm.OpWrite, kadm.OpDescribe) }},
			{store.Unwritable, command + "Write --topic " + o.Topic, func() { grant(acl().Topics(o.Topic), kadm.OpWrite) }},
			{store.Unwritable, command + "Write --topic " + audit, func() { grant(acl().Topics(audit), kadm.OpWrite) }},
		} {
			// The brokers know a permission a moment after it is granted.
			var got string
			await.That(t, "the problem "+step.code+" with "+step.remedy, func() bool {
				_, err := s.Update(within(t), "refused", installing("refused"))
				p, ok := errors.AsType[*store.Problem](err)
				if ok {
					got = p.Code + ": " + p.Remedy
				}
				return ok && p.Code == step.code && strings.Contains(p.Remedy, step.remedy)
			}, func() string { return got })
			step.grant()
		}
		await.That(t, "the change is written", func() bool {
			_, err := s.Update(within(t), "r1", installing("orders"))
			return err == nil || errors.Is(err, errTaken)
		})
		f.await(t, "orders@1")
		if p := s.Verify(within(t)); p != nil {
			t.Errorf("got %v, want no problem", p)
		}
		_, err := adm.DeleteACLs(within(t), acl().Topics(o.Topic).Allow("User:limited").AllowHosts("*").Operations(kadm.OpRead))
		must(t, err)
		update(t, open(t, options(b, o.Topic)), "r2", renaming("orders", "unseen"))
		f.await(t, "orders@1 !unreadable")
	})
}

// After an unclean election the log ends earlier than it did. What the lost part held is
// kept, also an integration that is not in the log at all.
func TestLogLostItsEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := kafkatest.Start(t, kafkatest.Options{Config: map[string]string{"log.dirs": dir}})
	o := store.Options{Topic: "integrations", Connection: kafka.Connection{Brokers: c.Brokers()}, Log: zap.NewNop()}
	f := follow(t, o)
	update(t, f.Store, "r1", installing("orders"))
	update(t, f.Store, "r2", installing("returns"))
	log := filepath.Join(dir, "integrations-0", "00000000000000000000.log")
	sized, err := os.Stat(log)
	must(t, err)
	update(t, f.Store, "r3", renaming("orders", "new"))
	update(t, f.Store, "r4", installing("carts"))
	update(t, f.Store, "r5", removing("returns"))
	f.await(t, "carts@1 orders@2")
	c.KillAll()
	must(t, os.Truncate(log, sized.Size()))
	for _, stale := range []string{"*.snapshot", "*.index", "*.timeindex", "*.txnindex"} {
		files, err := filepath.Glob(filepath.Join(dir, "integrations-0", stale))
		must(t, err)
		for _, name := range files {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	must(t, c.StartAll(t.Context()))
	// The removal is lost, too: it looks like an integration that another
	// process installed.
	f.await(t, "carts@1 orders@2 returns@1 !went_back")
	if p := f.last().Problem; !strings.Contains(p.Reason, "carts, orders") {
		t.Errorf("the problem is %v, want both names", p)
	}
	update(t, f.Store, "r6", renaming("orders", "again"))
	f.await(t, "carts@1 orders@3 returns@1 !went_back")
	update(t, f.Store, "r7", renaming("carts", "again"))
	f.await(t, "carts@2 orders@3 returns@1")
	other, err := open(t, o).Read(within(t))
	must(t, err)
	if describe(other) != "carts@2 orders@3 returns@1" {
		t.Errorf("another process reads %s", describe(other))
	}
}
