"""An agent with one node, which calls the scripted model and appends its reply to the thread's messages."""

import os

from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

model = ChatOpenAI(
    model="scripted",
    base_url=os.environ["MODEL_BASE_URL"],
    api_key="scripted",
    streaming=True,
)


async def agent(state: MessagesState):
    return {"messages": [await model.ainvoke([("system", "Be brief."), *state["messages"]])]}


builder = StateGraph(MessagesState)
builder.add_node(agent)
builder.add_edge(START, "agent")
graph = builder.compile()
