#!/bin/sh
# graphlay 0.3.1, two faults on valid input. Exit status 0 while they are there, 1 when the behaviour has changed.
#
# 1. With direction "topbottom" the label of a self-loop is put over the node and over its loop. The anchor is the loop's
#    outermost point plus a gap plus half the label's HEIGHT, where the label lies beside the loop and needs half its
#    WIDTH. Seen: node 100 x 40 at (0, 20), loop out to x = 65, label 60 x 20 anchored at x = 79: it begins at x = 49,
#    inside of the node (right border at x = 50). metrics() counts it: label_node_overlaps 1. With "leftright": 0.
# 2. With port_sides "long_edges_any" an edge may end at a border of its target that faces away, and then runs through
#    its own target. Seen with the graph below: the edge 3 -> 0 goes up to (56, 40), the lower border of node 0 (x 24 to
#    124, y 0 to 40), on within the node to (56, 20), and ends at (24, 20), its left border. metrics() counts it as
#    inward_ends (1), not as node_edge_hits. With "facing_preferred": 0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" graphlay==0.3.1
PYTHONPATH="$folder" python3 - <<'END'
import sys

import graphlay


def drawn(nodes, edges, options):
    box = {"size": {"width": 100.0, "height": 40.0}}
    return graphlay.layout({"nodes": [box] * nodes, "edges": edges}, preset="process_map", options=options)


print("graphlay", graphlay.__version__)
loop = [{"source": 0, "target": 0, "weight": 1.0, "label_size": {"width": 60.0, "height": 20.0}}]
overlaps = {}
for direction in ("leftright", "topbottom"):
    one = drawn(1, loop, {"direction": direction})
    overlaps[direction] = one.metrics()["label_node_overlaps"]
    print(direction, "label at", one.edges[0]["label_anchor"], "over nodes:", overlaps[direction])
pairs = [(4, 3), (1, 3), (4, 2), (3, 0), (0, 4), (0, 3), (3, 1)]
edges = [{"source": source, "target": target, "weight": 1.0} for source, target in pairs]
inward = {}
for sides in ("facing_preferred", "long_edges_any"):
    found = drawn(5, edges, {"routing": {"port_sides": sides}}).metrics()
    inward[sides] = found["inward_ends"]
    print(sides, "inward ends:", inward[sides], "node-edge hits:", found["node_edge_hits"])
same = overlaps == {"leftright": 0, "topbottom": 1} and inward == {"facing_preferred": 0, "long_edges_any": 1}
sys.exit(not same)
END
