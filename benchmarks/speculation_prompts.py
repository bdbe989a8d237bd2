"""Questions to a chat model: such whose answers repeat what was asked, and such whose answers do not."""

ARTICLE = """\
The harbour of Port Anselm was built in 1874, when the railway reached the coast and the town needed a place to load
grain and timber. The first pier was made of oak and lasted only nine winters. The second pier, which still stands, was
made of granite from the quarries at Hollow Hill, and it took four hundred workers six years to finish it. In 1901 a
lighthouse was added at the end of the pier. Its lamp burned oil until 1938, when it was replaced by an electric lamp
that can be seen from a distance of twenty miles. In the great storm of 1953 the harbour wall broke in two places, and
thirty-one fishing boats were lost. The town council decided to rebuild the wall two metres higher than before. Today
the harbour of Port Anselm is used by sailing clubs, by a ferry to the islands, and by a small number of fishing boats.
The old warehouses have become a museum, in which visitors can see the tools of the harbour workers and a model of the
first pier. The museum is open from April to October, and about forty thousand people visit it every year. The town
council plans to repair the granite pier, and expects that the work will take three years.
"""

CODE = """\
class Inventory:
    def __init__(self):
        self.items = {}

    def add(self, name, count):
        if count < 1:
            raise ValueError("count must be positive")
        self.items[name] = self.items.get(name, 0) + count

    def remove(self, name, count):
        if name not in self.items:
            raise KeyError(name)
        if self.items[name] < count:
            raise ValueError("not enough items")
        self.items[name] -= count
        if self.items[name] == 0:
            del self.items[name]

    def total(self):
        return sum(self.items.values())
"""

QUESTIONS = {
    "summary": [
        f"Summarize this text:\n\n{ARTICLE}",
        f"{ARTICLE}\nWhat does this text say about the harbour? Sum it up.",
    ],
    "edit": [
        f"Rename the method total to count in this code, and write the whole code again:\n\n```python\n{CODE}```",
        f"Add a docstring to the class, and write the whole code again:\n\n```python\n{CODE}```",
    ],
    "prose": [
        "Write a short story about a lighthouse keeper who finds a message in a bottle.",
        "Explain to a child why the sky is blue.",
        "Write a letter to an old friend about a journey through the mountains.",
    ],
}
