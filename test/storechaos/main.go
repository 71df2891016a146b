// Command storechaos checks that the store of integrations loses no change. Replicas,
// each a process, change it at random and follow it. Brokers of Apache Kafka and replicas
// are killed by a seed. At the end it compares what was acknowledged with the audit log
// and with the records.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if replicaMain(context.Background(), os.Stdout) {
		return
	}
	o := options{out: os.Stdout}
	flag.Uint64Var(&o.seed, "seed", 0, "`number` that decides faults and changes; 0 takes one at random and prints it")
	flag.DurationVar(&o.duration, "duration", 2*time.Minute, "how long faults are injected; start and audit are added")
	flag.IntVar(&o.replicas, "replicas", 3, "processes that change the store")
	flag.IntVar(&o.writers, "writers", 3, "writers of each replica")
	flag.IntVar(&o.brokers, "brokers", 3, "1 or 3")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	violations, err := chaos(ctx, o)
	stop()
	for _, v := range violations {
		fmt.Println("VIOLATION:", v)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storechaos:", err)
	}
	if err != nil || len(violations) > 0 {
		os.Exit(1)
	}
}
