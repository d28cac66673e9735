// Command patchserve-go loads a reference, inspects images and streams a folder.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"patchserve"
	"patchserve/pb"
)

const usage = `patchserve-go load [options] FOLDER     build a reference from the images in FOLDER
patchserve-go infer [options] IMAGE     inspect one image; --overlay FILE: write the heat map over the image
patchserve-go stream [options] FOLDER   inspect all images in FOLDER in one stream; --overlay FOLDER: write overlays
patchserve-go soak [options]            call until SIGTERM: --images FOLDER, see tests/conformance
patchserve-go conformance [options]     run test cases: --cases FILE --images FOLDER, see tests/conformance
`

var (
	flags     = flag.NewFlagSet("patchserve-go", flag.ContinueOnError)
	server    = flags.String("server", "localhost:50051", "the server, `HOST:PORT`")
	reference = flags.String("reference", "default", "the `ID` of the reference")
	timeout   = flags.Duration("timeout", 10*time.Minute, "the deadline of the whole command")
	overlay   = flags.String("overlay", "", "the `FILE` for the overlay (stream: the folder)")
	cases     = flags.String("cases", "", "the `FILE` with the test cases")
	images    = flags.String("images", "", "the `FOLDER` with the images of the test cases, or for soak")
	rounds    = flags.Int("rounds", math.MaxInt, "soak: end after `N` calls of each kind")
	options   patchserve.Options
)

func main() {
	flags.BoolVar(&options.TLS, "tls", false, "use TLS; --ca and --cert imply it")
	flags.StringVar(&options.CA, "ca", "", "a PEM `FILE`: the authorities for the server's certificate")
	flags.StringVar(&options.Cert, "cert", "", "a PEM `FILE`: the client's certificate")
	flags.StringVar(&options.Key, "key", "", "a PEM `FILE`: the key of --cert")
	flags.StringVar(&options.Token, "token", os.Getenv("PATCHSERVE_TOKEN"), "the bearer `TOKEN`; default: the variable PATCHSERVE_TOKEN")
	flags.BoolVar(&options.InsecureToken, "insecure-token", false, "allow sending the token unencrypted to another machine")
	flags.SetOutput(io.Discard) // a wrong flag is one line, and help goes to the standard output
	commands := map[string]func(context.Context, *patchserve.Client, string) error{
		"load": load, "infer": infer, "stream": stream, "conformance": nil, "soak": nil,
	}
	if len(os.Args) < 2 {
		printHelp(os.Stderr)
		os.Exit(2)
	}
	command, known := commands[os.Args[1]]
	rest := os.Args[1:]
	if known {
		rest = os.Args[2:]
	}
	if err := flags.Parse(rest); err == flag.ErrHelp {
		printHelp(os.Stdout)
		os.Exit(0)
	} else if err != nil {
		wrongUsage(err.Error())
	}
	if !known {
		wrongUsage("There is no command " + os.Args[1])
	}
	if (command != nil) != (flags.NArg() == 1) {
		wrongUsage(fmt.Sprintf("%s takes one file or folder after the options (conformance and soak take none)", os.Args[1]))
	}
	if err := run(command); err != nil {
		if _, ok := status.FromError(err); ok {
			fmt.Fprintln(os.Stderr, describe(patchserve.ErrorOf(err)))
		} else {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func printHelp(output io.Writer) {
	fmt.Fprint(output, usage)
	flags.SetOutput(output)
	flags.PrintDefaults()
}

func wrongUsage(problem string) {
	fmt.Fprintf(os.Stderr, "%s. See --help.\n", problem)
	os.Exit(2)
}

func describe(failed *patchserve.Error) string {
	reason := ""
	if failed.Reason != "" {
		reason = " " + failed.Reason
	}
	return fmt.Sprintf("%s%s: %s", codeName(failed.Code), reason, failed.Message)
}

func run(command func(context.Context, *patchserve.Client, string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if command == nil {
		if os.Args[1] == "soak" {
			return soak()
		}
		return conformance(ctx)
	}
	client, err := patchserve.Dial(*server, options)
	if err != nil {
		return err
	}
	defer client.Close()
	return command(ctx, client, flags.Arg(0))
}

func load(ctx context.Context, client *patchserve.Client, folder string) error {
	next, err := files(folder)
	if err != nil {
		return err
	}
	start := &pb.LoadReferenceRequest{ReferenceId: *reference, Profile: pb.ScoringProfile_SCORING_PROFILE_VERDICT}
	loaded, err := client.Load(ctx, start, func() ([]byte, error) {
		_, image, err := next()
		return image, err
	})
	if err == nil {
		fmt.Printf("%s: %d images, revision %s\n", loaded.ReferenceId, loaded.ImageCount, loaded.Revision)
	}
	return err
}

func infer(ctx context.Context, client *patchserve.Client, path string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	output := &pb.OutputOptions{Overlay: *overlay != ""}
	found, err := client.Infer(ctx, &pb.InferRequest{ReferenceId: *reference, Image: image, Output: output})
	if err != nil {
		return err
	}
	fmt.Println(verdict(path, found))
	if *overlay == "" {
		return nil
	}
	return os.WriteFile(*overlay, found.OverlayPng, 0o644)
}

func stream(ctx context.Context, client *patchserve.Client, folder string) error {
	next, err := files(folder)
	if err != nil {
		return err
	}
	config := &pb.StreamConfig{ReferenceId: *reference, Output: &pb.OutputOptions{Overlay: *overlay != ""}}
	return client.Stream(ctx, config, func() (*pb.Frame, error) {
		name, image, err := next()
		return &pb.Frame{FrameId: name, Image: image}, err
	}, handle)
}

func handle(message *pb.InferStreamResponse) error {
	if notice := message.GetNotice(); notice != nil {
		fmt.Fprintln(os.Stderr, notice.Message)
	}
	result := message.GetResult()
	if result == nil {
		return nil
	}
	if failed := result.GetError(); failed != nil {
		fmt.Printf("%s: %s\n", result.FrameId, describe(patchserve.ErrorOfFrame(failed)))
		return nil
	}
	fmt.Println(verdict(result.FrameId, result.GetResponse()))
	if *overlay == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(*overlay, result.FrameId+".png"), result.GetResponse().OverlayPng, 0o644)
}

// verdict says how many times the threshold the image reaches, rounded on the side of the verdict.
func verdict(name string, found *pb.InferResponse) string {
	ratio := float64(found.Anomaly.RawScore) / float64(found.Anomaly.RawThreshold)
	if found.Anomaly.IsAnomalous {
		return fmt.Sprintf("%s: anomalous %.2f x", name, math.Max(ratio, 1.01))
	}
	return fmt.Sprintf("%s: intact %.2f x", name, math.Min(ratio, 1))
}

// files returns a function that reads the images of a folder one by one, sorted by name, and returns io.EOF at the end.
func files(folder string) (func() (string, []byte, error), error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	return func() (string, []byte, error) {
		for len(entries) > 0 {
			name := entries[0].Name()
			entries = entries[1:]
			switch strings.ToLower(filepath.Ext(name)) {
			case ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp":
				image, err := os.ReadFile(filepath.Join(folder, name))
				return name, image, err
			}
		}
		return "", nil, io.EOF
	}, nil
}
