const answer = await fetch(process.argv[2], { headers: { Authorization: "Bearer " + process.env.OPENAI_API_KEY } });
if (!answer.ok) throw new Error(answer.status);
console.log(await answer.text());
