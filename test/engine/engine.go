//go:build linux

// Package engine starts a Docker engine for the tests of one package and ends it
// with them. It needs root, and Docker's daemon and client; tools/engines.sh installs
// both on Debian.
//
// The engine is never the user's. What it stores and its socket are in a temporary
// folder, because tests make images under the names of others, such as golang:1.26.
// The daemon has a PID and a mount namespace of its own. So when the
// tests end in any way, the kernel ends the daemon, its containers and its mounts. In
// there the configuration of Docker on this machine and the sockets of its containerd
// are hidden. Bridges of networks outlive tests that are killed.
//
// There is no default bridge and there are no iptables rules. Containers use the host's
// network or one that docker network create makes, and builds that download need
// --network host.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/datafly/bridge/internal/await"
)

const (
	// commandLimit is the longest that a docker command other than a build takes.
	commandLimit = 2 * time.Minute
	// buildLimit is the longest that a build takes. It compiles the bridge on a busy machine.
	buildLimit = 30 * time.Minute
	// startLimit is the longest that the daemon takes to answer, and to end.
	startLimit = time.Minute
)

// namespaces is what the daemon's shell does before it becomes the daemon. A daemon uses
// the containerd of the machine if it finds its socket.
const namespaces = `mount -t proc proc /proc
for dir in /etc/docker /run/docker /run/containerd; do
	mkdir -p "$dir"
	mount -t tmpfs tmpfs "$dir"
done
exec "$@"`

// Engine is a running Docker daemon.
type Engine struct {
	dir    string
	lock   *os.File // of dir, until this process ends
	docker string
	daemon *exec.Cmd
	ended  chan struct{} // closed when the daemon has ended
}

// Start starts an engine. The caller must call [Engine.Stop]; [Main] does both.
func Start(ctx context.Context) (*Engine, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("starting a Docker engine needs root; run the target as root")
	}
	dockerd, err := find("dockerd", "/usr/sbin/dockerd")
	if err != nil {
		return nil, err
	}
	docker, err := find("docker", "/usr/bin/docker")
	if err != nil {
		return nil, err
	}
	removeAbandoned()
	e := &Engine{docker: docker, ended: make(chan struct{})}
	if e.dir, err = os.MkdirTemp("", folderPrefix); err != nil {
		return nil, err
	}
	if e.lock, err = lock(e.dir); err != nil {
		return nil, err
	}
	log, err := os.Create(e.file("log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// systemd, if asked for control groups, would take PIDs of the namespace for the host's.
	e.daemon = exec.Command("/bin/sh", "-ec", namespaces, "sh", //nolint:noctx // Stop ends it
		dockerd, "--data-root", e.file("data"), "--exec-root", e.file("exec"), "--pidfile", e.file("pid"), "--host", e.Host(),
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
	e.daemon.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin") // su leaves them out
	e.daemon.Stdout, e.daemon.Stderr = log, log
	e.daemon.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS,
		Setpgid: true, Pdeathsig: syscall.SIGKILL, // Ctrl-C is for the tests, which call Stop
	}
	if err := e.daemon.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", dockerd, err), os.RemoveAll(e.dir))
	}
	go func() {
		_ = e.daemon.Wait() // its log has the reason
		close(e.ended)
	}()
	answers := await.Within(startLimit, func() bool {
		select {
		case <-e.ended:
			return true
		default:
			_, err = e.Docker(ctx, "version")
			return err == nil || ctx.Err() != nil
		}
	})
	if err == nil && answers && e.running() {
		return e, nil
	}
	text, _ := os.ReadFile(e.file("log"))
	return nil, errors.Join(fmt.Errorf("the Docker daemon did not start: %w\n%s", err, last(text, 20)), e.Stop())
}

// Stop removes the containers and networks, ends the daemon and removes its folder.
func (e *Engine) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit) //nolint:forbidigo // runs after an interrupted test too
	defer cancel()
	var errs []error
	if e.running() {
		ids, err := e.Docker(ctx, "ps", "--all", "--quiet")
		if ids := strings.Fields(ids); len(ids) > 0 {
			_, err = e.Docker(ctx, append([]string{"rm", "--force", "--volumes"}, ids...)...)
		}
		errs = append(errs, err)
		_, err = e.Docker(ctx, "network", "prune", "--force")
		errs = append(errs, err, e.daemon.Process.Signal(syscall.SIGTERM))
		stop := time.AfterFunc(startLimit, func() { _ = e.daemon.Process.Kill() })
		<-e.ended
		stop.Stop()
	}
	return errors.Join(append(errs, os.RemoveAll(e.dir))...)
}

func (e *Engine) running() bool {
	select {
	case <-e.ended:
		return false
	default:
		return true
	}
}

// Host returns the address of the engine, as DOCKER_HOST and docker --host have it.
func (e *Engine) Host() string { return "unix://" + e.file("docker.sock") }

func (e *Engine) file(name string) string { return filepath.Join(e.dir, name) }

// Command returns a docker command for this engine. It reads no configuration of the
// user.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, e.docker, args...)
	cmd.Env = e.Environ()
	return cmd
}

// Environ returns the environment for other clients of the engine, such as docker
// compose. It has none of the user's settings for them.
func (e *Engine) Environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "DOCKER_") || strings.HasPrefix(v, "COMPOSE_") || strings.HasPrefix(v, "BUILDX_")
	})
	return append(env, "DOCKER_HOST="+e.Host(), "DOCKER_CONFIG="+e.file("config"), "DOCKER_BUILDKIT=1")
}

// Docker runs a docker command and returns what it writes to its standard output,
// without white space around it. It takes two minutes at most.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	return e.run(ctx, commandLimit, args...)
}

func (e *Engine) run(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := e.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("not done within %v", limit)
	}
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, last(stderr.Bytes(), 40))
	}
	return strings.TrimSpace(stdout.String()), err
}

// find returns the program at the path where Debian installs it, or the one on PATH.
func find(name, path string) (string, error) {
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not installed; run tools/engines.sh, or install Docker", name)
	}
	return path, nil
}

const folderPrefix = "bridge-dockerd-"

// lock locks a folder until this process ends or the file is closed.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// removeAbandoned removes this user's folders of engines whose process was killed. Their
// daemons ended with it.
func removeAbandoned() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, dir := range folders {
		held, err := lock(dir)
		if err != nil {
			continue // its tests run
		}
		var info syscall.Stat_t
		if syscall.Fstat(int(held.Fd()), &info) == nil && int(info.Uid) == os.Getuid() {
			_ = os.RemoveAll(dir) // it only takes space
		}
		held.Close()
	}
}

// last returns the last n lines of text.
func last(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
