package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

func newDLQShowCommand() *cobra.Command {
	var f deadLetterFlags
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "show [<dead-letter topic>/]<partition>/<offset>",
		Short: "Show one dead letter, mapped with the present blueprint",
		Long: `show prints a whole dead letter with its event, and maps the event as bridge run
would now: for each event that failed, the source of each column, or why it still is
no row. Name the dead letter as dlq list does. If the columns of the table cannot be
read, show maps with the blueprint alone and reports that.`,
		Example: `  bridge dlq show --config config.yaml 0/17
  bridge dlq show --integration orders 0/17
  bridge dlq show delivery-int_xyz789-dlq/0/17 --set mapping.blueprint=new.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, partition, offset, err := deadletter.ParseName(args[0])
			if err != nil {
				return &usageError{err}
			}
			cfgs, err := f.read(cmd, true, false)
			if err != nil {
				return err
			}
			cfg := cfgs[0]
			b, err := pipeline.NewParts(cfg, version(), commandLogger(cmd, cfg.Log, nil), nil)
			if err != nil {
				return &usageError{err}
			}
			defer b.Close()
			r, err := operations.Open(cmd.Context(), b.Cluster.Client, nil, cfg)
			if err != nil {
				return err
			}
			switch {
			case topic == "" && len(r.Topics) > 1:
				return &usageError{fmt.Errorf("there are several dead-letter topics; put one in front, as in %s/%s", r.Topics[0], args[0])}
			case topic == "":
				topic = r.Topics[0]
			case !slices.Contains(r.Topics, topic):
				return &usageError{fmt.Errorf("%s is not the dead-letter topic of a configured topic; use %s", plaintext.ShortLine(topic, 249), strings.Join(r.Topics, " or "))}
			}
			l, err := r.At(cmd.Context(), topic, partition, offset)
			if err != nil {
				return err
			}
			if l == nil {
				return suggest(fmt.Errorf("there is no dead letter at %s/%d/%d: the topic's retention removed it, it is a marker, or it never existed; run bridge dlq list", topic, partition, offset),
					"bridge dlq list --all"+configArgument(cmd))
			}
			s := operations.Show(cmd.Context(), l, len(r.Topics), b)
			return output.write(cmd, s, func(b *strings.Builder, _ terminal.Style) { s.WriteText(b) })
		},
	}
	f.addTopics(cmd)
	output = addOutput(cmd)
	return cmd
}
