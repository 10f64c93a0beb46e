// Stands in for consul-template where no release of it can be had: its template engine is Go's, its
// functions here are those that the app upstreams need, and its keys are in a JSON file.
//
// consul-template [-config PATH ...] [-template SOURCE:DESTINATION ...] -once [-dry]
//
// Without -template the pairs of the configuration are rendered, and their commands run on a change.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"text/template"
)

type pair struct{ Key, Value string }

type list []string

func (l *list) String() string         { return strings.Join(*l, " ") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// Where keys are, unless CONSUL_KEYS names another file.
const keys = "/etc/consul-keys.json"

func known() map[string]string {
	name := os.Getenv("CONSUL_KEYS")
	if name == "" {
		name = keys
	}
	text, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	found := map[string]string{}
	if err := json.Unmarshal(text, &found); err != nil {
		log.Fatal(err)
	}
	return found
}

func ls(prefix string) []pair {
	var pairs []pair
	for key, value := range known() {
		if name := strings.TrimPrefix(key, prefix+"/"); name != key && !strings.Contains(name, "/") {
			pairs = append(pairs, pair{name, value})
		}
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].Key < pairs[j].Key })
	return pairs
}

func parseJSON(text string) (any, error) {
	var value any
	err := json.Unmarshal([]byte(text), &value)
	return value, err
}

func render(source string) []byte {
	text, err := os.ReadFile(source)
	if err != nil {
		log.Fatal(err)
	}
	functions := template.FuncMap{
		"ls": ls, "parseJSON": parseJSON, "key": func(name string) string { return known()[name] },
	}
	parsed, err := template.New("").Funcs(functions).Parse(string(text))
	if err != nil {
		log.Fatal(err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, nil); err != nil {
		log.Fatal(err)
	}
	return out.Bytes()
}

var block = regexp.MustCompile(`(?s)template \{.*?source = "(.*?)".*?destination = "(.*?)".*?command = "(.*?)"\n`)

func configured(paths []string) [][]string {
	var found [][]string
	for _, path := range paths {
		files, _ := filepath.Glob(filepath.Join(path, "*"))
		if len(files) == 0 {
			files = []string{path}
		}
		for _, file := range files {
			text, _ := os.ReadFile(file)
			for _, match := range block.FindAllStringSubmatch(string(text), -1) {
				found = append(found, match[1:])
			}
		}
	}
	return found
}

func main() {
	log.SetFlags(0)
	var configs, templates list
	flag.Var(&configs, "config", "")
	flag.Var(&templates, "template", "")
	flag.Bool("once", false, "")
	dry := flag.Bool("dry", false, "")
	flag.Parse()
	todo := configured(configs)
	for _, each := range templates {
		todo = append(todo, append(strings.SplitN(each, ":", 2), ""))
	}
	for _, each := range todo {
		contents := render(each[0])
		if existing, err := os.ReadFile(each[1]); err == nil && bytes.Equal(existing, contents) {
			continue
		}
		if *dry {
			fmt.Printf("> %s\n%s", each[1], contents)
			continue
		}
		if err := os.WriteFile(each[1], contents, 0o644); err != nil {
			log.Fatal(err)
		}
		if each[2] != "" {
			command := exec.Command("/bin/sh", "-c", each[2])
			command.Stdout, command.Stderr = os.Stdout, os.Stderr
			if err := command.Run(); err != nil {
				log.Fatal(err)
			}
		}
	}
}
