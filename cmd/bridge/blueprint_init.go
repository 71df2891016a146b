package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed starter/blueprint.yaml
var starterBlueprint []byte

//go:embed starter/blueprint.test.yaml
var starterTests []byte

func newBlueprintInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a blueprint and its tests to start from",
		Long: `init writes a small blueprint with comments, blueprint.yaml unless FILE says
otherwise, and its tests beside it. Files that are there already stay as they are.`,
		Example: `  bridge blueprint init
  bridge blueprint init blueprints/shop.yaml && bridge blueprint test blueprints/shop.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "blueprint.yaml"
			if len(args) > 0 {
				file = args[0]
			}
			if ext := filepath.Ext(file); ext != ".yaml" || strings.HasSuffix(file, testSuffix) {
				return &usageError{fmt.Errorf("%s cannot have its tests beside it; name a file that ends in .yaml, such as shop.yaml", file)}
			}
			tests := strings.TrimSuffix(file, ".yaml") + testSuffix
			if err := writeNew(file, tests); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s and %s written; next: bridge blueprint test %s\n", file, tests, file)
			return err
		},
	}
}

// writeNew writes both files or none, and none over another.
func writeNew(file, tests string) error {
	name, testName := []byte("blueprint.yaml"), []byte("blueprint.test.yaml")
	for _, f := range []string{file, tests} {
		if _, err := os.Lstat(f); err == nil {
			return &usageError{fmt.Errorf("%s is there already and stays as it is; name another file", f)}
		}
	}
	own := bytes.ReplaceAll(starterBlueprint, name, []byte(filepath.Base(file)))
	own = bytes.ReplaceAll(own, testName, []byte(filepath.Base(tests)))
	if err := writeOnce(file, own); err != nil {
		return err
	}
	if err := writeOnce(tests, starterTests); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

func writeOnce(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &usageError{fmt.Errorf("%s is there already and stays as it is; name another file", file)}
	}
	if err != nil {
		return fmt.Errorf("writing the blueprint: %w; name a file in a folder that can be written to", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", file, err), os.Remove(file))
	}
	return nil
}
