// pulumi-toolchain ROOT PROGRAM OPTION=VALUE...: print the Python that Pulumi's language host runs a program with.
//
// ROOT is the folder of Pulumi.yaml, PROGRAM that of the program, the options those of its `runtime`. Ends with 1 and
// Pulumi's own words where it finds none.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

func main() {
	options := toolchain.PythonOptions{Root: os.Args[1], ProgramDir: os.Args[2]}
	for _, word := range os.Args[3:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "virtualenv":
			options.Virtualenv = value
		case "toolchain":
			if value != "pip" {
				fail(fmt.Errorf("toolchain %q: this program knows pip alone", value))
			}
			options.Toolchain = toolchain.Pip
		default:
			fail(fmt.Errorf("unknown option: %s", name))
		}
	}
	resolved, err := toolchain.ResolveToolchain(options)
	if err != nil {
		fail(err)
	}
	command, err := resolved.Command(context.Background(), "-c", "pass")
	if err != nil {
		fail(err)
	}
	fmt.Println(command.Path)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
